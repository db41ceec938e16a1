"""Preparation of audio files from an empty cache: against one process, and against librosa."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ser_plugins import SpeechNormalizer
from ser_plugins.audio.reading import SAMPLE_RATE
from ser_plugins.corpora.prepared import prepare
from speed.corpus import read_files
from speed.harness import Row, alternate

FILES = 1440


def librosa_trim(paths: list[Path]) -> None:
    """Decode, resample and trim, as a script with librosa does."""
    import librosa

    for path in paths:
        signal, rate = librosa.load(path, sr=None, mono=True)
        librosa.effects.trim(librosa.resample(signal, orig_sr=rate, target_sr=SAMPLE_RATE))


def run() -> Iterator[Row]:
    """Measure."""
    paths = read_files(FILES)
    cores = os.cpu_count() or 1

    def ours(workers: int, vad: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            prepare(paths, SpeechNormalizer(vad=vad), folder, workers=workers)

    one, all_cores, trimmed, plain = alternate(
        lambda: ours(1, "silero"),
        lambda: ours(cores, "silero"),
        lambda: librosa_trim(paths),
        lambda: ours(cores, "webrtc"),
        repeats=1,
    )
    rate = [f"{len(paths) / seconds:.0f} files/s" for seconds in (one, all_cores, trimmed, plain)]
    yield Row(f"preparation, {cores} processes against one", rate[1], rate[0], one / all_cores, 0.8 * cores)
    yield Row("preparation, Silero VAD, against librosa", rate[1], rate[2], trimmed / all_cores, 5)
    yield Row("preparation, WebRTC VAD, against librosa", rate[3], rate[2], trimmed / plain, 5)
