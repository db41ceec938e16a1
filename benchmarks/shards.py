"""Cost of packing VoxCeleb2 into shards and of training on them, measured on generated trees of its layout.

python benchmarks/shards.py FOLDER writes trees of AAC files from the built-in corpus into FOLDER. 1,000 clips of 8 s,
the mean length of VoxCeleb2's, measure rates; 10,000 and 100,000 clips of 0.3 s measure memory. It packs them with one
process, reads them back, trains on crops of 2 s with one thread, and writes benchmarks/results/shards.md. Memory is the
peak resident set of a fresh process that lists, splits and packs a tree, and of its worker. Numbers of VoxCeleb2 are
extrapolated; of real speech the VAD keeps another share.
"""

import argparse
import multiprocessing
import os
import resource
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import av
import numpy as np
import torch
from speed.harness import alternate, operations
from speed.step import stepper
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from ser_plugins import SpeechNormalizer
from ser_plugins.audio.reading import SAMPLE_RATE, load_audio
from ser_plugins.configuration import compose
from ser_plugins.corpora import Synthetic
from ser_plugins.corpora.shards import ShardFolder, open_shards, write_shards
from ser_plugins.corpora.speakers import SpeakerFolders, split_speakers
from ser_plugins.files import atomic_write
from ser_plugins.memory import keep_memory
from ser_plugins.training.run import build
from ser_plugins.training.stream import CropStream, StreamLoader

PER_SPEAKER = 100
HOURS, UTTERANCES, SPEAKERS = 2400, 1_090_000, 5994  # of VoxCeleb2
BATCH = 32
FRAMES = 201  # of 2 s
RATE_CLIPS, RATE_SECONDS = 1000, 8.0
MEMORY_CLIPS = (10_000, 100_000)


def write_aac(path: Path, samples: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.rate = SAMPLE_RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def make_tree(folder: Path, clips: int, seconds: float, root: Path) -> None:
    """Write ten clips, and link them under as many names as asked for."""
    corpus = Synthetic(str(root / "synthetic")).read()
    voices = [load_audio(path)[0][:, 0] for path in corpus.table["path"][::48]]
    sources = []
    for number, voice in enumerate(voices):
        sources.append(root / f"{seconds:g}s-{number}.m4a")
        write_aac(sources[-1], np.resize(voice, round(SAMPLE_RATE * seconds)))
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


class Identification(nn.Module):
    """Speaker identification from spectrograms, as its preset builds it."""

    def __init__(self) -> None:
        super().__init__()
        hparams = build(compose("pretrain", changes={"n_classes": SPEAKERS}))
        self.encoder, self.classifier = hparams["embedding_model"], hparams["classifier"]

    def forward(self, feats: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.nll_loss(self.classifier(self.encoder(feats)).squeeze(1), labels)


def memory_rows(root: Path) -> list[tuple[str, str]]:
    """Measure the peak memory of packing, before this process grows: its children begin with its peak."""
    rows = []
    for clips in MEMORY_CLIPS:
        _, _, memory = packed(root, clips, 0.3, "none")
        rows.append((f"peak memory at {clips:,} utterances, the larger of process and worker", f"{memory:.0f} MiB"))
    return rows


def packing_rows(folder: ShardFolder, elapsed: float, clip_seconds: float) -> list[tuple[str, str]]:
    """Compute the time and size of packing."""
    size = sum(path.stat().st_size for path in folder.folder.glob("*.tar"))
    samples = sum(sum(counts) for counts in folder.index["parts"].values())  # of held-out speakers, some stay out
    hours = samples * clip_seconds / 3600
    rate = size / folder.index["seconds"]
    return [
        ("packing, hours of audio a minute and core", f"{hours / (elapsed / 60):.2f}"),
        (f"VoxCeleb2 ({HOURS} h): core-hours of packing", f"{HOURS / hours * elapsed / 3600:.0f}"),
        ("share of this audio that the VAD keeps", f"{100 * folder.index['seconds'] / 3600 / hours:.0f} %"),
        ("bytes a second of kept speech", f"{rate:.0f}"),
        ("VoxCeleb2: disk, if all of it were kept", f"{rate * HOURS * 3600 / 1e9:.0f} GB"),
    ]


def training_rows(reading: float) -> list[tuple[str, str]]:
    """Measure training steps on spectrograms in memory with one thread; compare with the rate of reading."""
    rows = [("reading and cropping, utterances a second and core", f"{reading:.0f}")]
    torch.set_num_threads(1)
    model, feats, labels = Identification(), torch.randn(BATCH, FRAMES, 257), torch.randint(SPEAKERS, (BATCH,))
    steps = {name: stepper(model, feats, labels, name == "bfloat16") for name in ("float32", "bfloat16")}
    for name, seconds in zip(steps, alternate(*steps.values()), strict=True):
        rows += [
            (f"training, {name}, utterances a second and core", f"{BATCH / seconds:.0f}"),
            (f"VoxCeleb2, {name}: core-hours an epoch", f"{UTTERANCES * seconds / BATCH / 3600:.1f}"),
        ]
    return [
        *rows,
        ("VoxCeleb2: reading, core-hours an epoch", f"{UTTERANCES / reading / 3600:.2f}"),
        ("VoxCeleb2: operations an epoch", f"{operations(steps['float32']) / BATCH * UTTERANCES / 1e6:.1f} × 10¹⁵"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder for the trees and the shards")
    root = parser.parse_args().folder
    keep_memory()
    folder, elapsed, _ = packed(root, RATE_CLIPS, RATE_SECONDS, "silero")
    rows = [*packing_rows(folder, elapsed, RATE_SECONDS), *memory_rows(root), *training_rows(reading_rate(folder))]
    text = "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])
    atomic_write(Path("benchmarks/results/shards.md"), text + "\n")
    print(text)


if __name__ == "__main__":
    main()
