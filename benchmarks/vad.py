"""Voice activity detectors, compared on the recordings of a corpus.

python benchmarks/vad.py FOLDER finds speech in all .wav files below FOLDER, one thread, and writes
benchmarks/results/vad.md. There is no hand-made truth, so two errors are estimated from the level of frames of 10 ms,
measured against the loudest of the recording: speech that is cut (frames within 20 dB of it that are removed) and
silence that is left (frames 50 dB and more below it that are kept).
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ser_plugins.audio.speech import VADS, SpeechNormalizer, load_audio
from ser_plugins.files import atomic_write

FRAME = 160
LOUD, QUIET = -20.0, -50.0


def levels(signal: torch.Tensor) -> np.ndarray:
    power = signal[: len(signal) // FRAME * FRAME].reshape(-1, FRAME).square().mean(1).numpy()
    return 10 * np.log10(power / power.max() + 1e-12)


def kept(segments: list[tuple[int, int]], frames: int) -> np.ndarray:
    mask = np.zeros(frames, dtype=bool)
    for start, end in segments:
        mask[start // FRAME : -(-end // FRAME)] = True
    return mask


def row(name: str, signals: list[torch.Tensor]) -> str:
    find = VADS[name][1]
    find(signals[0])  # loads the model
    start = time.perf_counter()
    found = [find(signal) for signal in tqdm(signals, desc=name)]
    seconds = time.perf_counter() - start
    level = [levels(signal) for signal in signals]
    masks = [kept(segments, len(db)) for segments, db in zip(found, level, strict=True)]
    db, mask = np.concatenate(level), np.concatenate(masks)
    none = sum(not segments for segments in found)
    cut, left = (~mask)[db > LOUD].mean(), mask[db < QUIET].mean()
    return f"| {name} | {100 * mask.mean():.1f} | {100 * cut:.2f} | {100 * left:.1f} | {none} | {seconds:.0f} |"


def main() -> None:
    torch.set_num_threads(1)
    paths = sorted(Path(sys.argv[1]).rglob("*.wav"))
    normalizer = SpeechNormalizer(vad="none")
    signals = []
    for path in tqdm(paths, desc="reading"):
        samples, rate = load_audio(path)
        signals.append(normalizer(torch.from_numpy(samples), rate))
    hours = sum(map(len, signals)) / 16000 / 3600
    text = [
        f"{len(signals)} recordings, {hours:.2f} h. "
        f"Loud: within {-LOUD:.0f} dB of a recording's loudest 10 ms; quiet: {-QUIET:.0f} dB below it.",
        "",
        "| VAD | time kept, % | loud frames cut, % | quiet frames kept, % | recordings without speech | seconds |",
        "|---|---|---|---|---|---|",
        *(row(name, signals) for name in VADS),
    ]
    atomic_write(Path("benchmarks/results/vad.md"), "\n".join(text) + "\n")
    print("\n".join(text))


if __name__ == "__main__":
    main()
