"""What packing VoxCeleb2 costs, and whether it feeds training: measured on generated trees of its layout.

python benchmarks/shards.py FOLDER makes trees of AAC files below FOLDER out of the voices of the built-in corpus: 1,000
clips of 8 s, as long as VoxCeleb2's are on average, for the rates, and 10,000 and 100,000 clips of 1 s for the memory.
It packs them with one process, reads them back, and writes benchmarks/results/shards.md. Memory is the peak resident
set of a fresh process that lists, splits and packs a tree, and of its worker.
"""

import multiprocessing
import os
import resource
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

from ser_plugins import SpeechNormalizer
from ser_plugins.audio.speech import load_audio
from ser_plugins.corpora import Demo
from ser_plugins.corpora.shards import ShardFolder, open_shards, write_shards
from ser_plugins.corpora.speakers import SpeakerFolders, split_speakers
from ser_plugins.files import atomic_write
from ser_plugins.training.stream import CropStream, StreamLoader

PER_SPEAKER = 100
HOURS = 2400  # of VoxCeleb2
BATCH = 32


def write_aac(path: Path, samples: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def make_tree(folder: Path, clips: int, seconds: float, root: Path) -> None:
    """Ten clips, linked again and again under the names of as many."""
    corpus = Demo(str(root / "demo")).read()
    voices = [load_audio(path)[0][:, 0] for path in corpus.table["path"][::48]]
    sources = []
    for number, voice in enumerate(voices):
        sources.append(root / f"{seconds:g}s-{number}.m4a")
        write_aac(sources[-1], np.resize(voice, round(16000 * seconds)))
    for number in tqdm(range(clips), desc=f"{clips} clips"):
        speaker = folder / "dev" / "aac" / f"id{number // PER_SPEAKER:05d}"
        path = speaker / f"video{number % 5}" / f"{number:07d}.m4a"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            os.link(sources[number % len(sources)], path)


def pack(tree: Path, shards: Path, vad: str) -> tuple[float, float]:
    start = time.perf_counter()
    corpus = SpeakerFolders(str(tree), "voxceleb2", ["dev/aac"]).read()
    parts, pairs = split_speakers(corpus, 2, 10_000, 1)
    write_shards(parts, pairs, SpeechNormalizer(vad=vad), shards, workers=1)
    peaks = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter() - start, max(peaks)


def packed(root: Path, clips: int, seconds: float, vad: str) -> tuple[ShardFolder, float, float]:
    tree, shards = root / f"{clips}", root / f"{clips}-shards"
    make_tree(tree, clips, seconds, root)
    shutil.rmtree(shards, ignore_errors=True)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        elapsed, memory = fresh.submit(pack, tree, shards, vad).result()
    folder = open_shards(shards)
    assert folder is not None
    return folder, elapsed, memory


def reading_rate(folder: ShardFolder) -> float:
    loader = StreamLoader(CropStream(folder.part("train"), folder.speakers, BATCH, 2.0, 1))
    start = time.perf_counter()
    count = sum(len(batch.id) for batch in loader)
    return count / (time.perf_counter() - start)


def main() -> None:
    root = Path(sys.argv[1])
    folder, elapsed, _ = packed(root, 1000, 8.0, "silero")
    size = sum(path.stat().st_size for path in folder.folder.glob("*.tar"))
    samples = sum(sum(counts) for counts in folder.index["parts"].values())  # of held-out speakers, some stay out
    hours = samples * 8 / 3600
    kept = folder.index["seconds"] / 3600 / hours
    rows = [
        ("packing, hours of audio a minute and core", f"{hours / (elapsed / 60):.2f}"),
        (f"VoxCeleb2 ({HOURS} h): core-hours of packing", f"{HOURS / hours * elapsed / 3600:.0f}"),
        ("time kept of these voices by the VAD", f"{100 * kept:.0f} %"),
        ("bytes a second of kept speech", f"{size / folder.index['seconds']:.0f}"),
        ("VoxCeleb2: disk, if all of it were kept", f"{size / folder.index['seconds'] * HOURS * 3600 / 1e9:.0f} GB"),
        ("reading and cropping, utterances a second and core", f"{reading_rate(folder):.0f}"),
    ]
    for clips in (10_000, 100_000):
        _, elapsed, memory = packed(root, clips, 1.0, "none")
        rows.append((f"peak memory at {clips:,} utterances, the larger of process and worker", f"{memory:.0f} MiB"))
    text = "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])
    atomic_write(Path("benchmarks/results/shards.md"), text + "\n")
    print(text)


if __name__ == "__main__":
    main()
