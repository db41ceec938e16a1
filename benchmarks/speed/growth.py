"""Growth of time and memory with the length of a clip, the batch and the corpus, and of time with processes."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from ser_plugins import GhostVLAD, SEResNet34, Spectrogram, UtteranceEncoder
from ser_plugins.audio.reading import SAMPLE_RATE
from ser_plugins.audio.spectrogram import SpectrogramNorm
from ser_plugins.corpora.corpus import Corpus
from ser_plugins.corpora.folds import fold_parts
from ser_plugins.files import atomic_path
from ser_plugins.memory import keep_memory
from ser_plugins.training.data import make_dataset
from speed.harness import Row, alternate, fresh

SECONDS = (1, 3, 10, 30, 100, 300, 600)
BATCHES = (8, 16, 32, 64, 128)
UTTERANCES = (1_000, 10_000, 100_000)
STEP = """
import time, torch
from ser_plugins import GhostVLAD, SEResNet34, UtteranceEncoder
torch.set_num_threads(1)
ranks = {ranks}
if ranks > 1:
    torch.distributed.init_process_group("gloo")
encoder = UtteranceEncoder(SEResNet34(), GhostVLAD())
model = torch.nn.parallel.DistributedDataParallel(encoder) if ranks > 1 else encoder
feats = torch.randn({batch} // ranks, 201, 257)
for step in range(5):
    if step == 2:
        start = time.perf_counter()
    model(feats).square().sum().backward()
print((time.perf_counter() - start) / 3)
"""


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Fit the exponent of the growth over the larger half of the sizes, where constant costs matter little."""
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half:]), np.log(values[half:]), 1)[0])


def embed_clip(seconds: int) -> Callable[[], None]:
    """Make a function that embeds a clip of so many seconds."""
    encoder, features, norm = UtteranceEncoder(SEResNet34(), GhostVLAD()).eval(), Spectrogram(), SpectrogramNorm()
    wavs = torch.randn(1, SAMPLE_RATE * seconds)

    @torch.no_grad()
    def embed() -> None:
        encoder(norm(features(wavs)))

    return embed


def train_batch(size: int) -> Callable[[], None]:
    """Make a function that runs forward and backward on so many utterances of 2 s."""
    encoder, feats = UtteranceEncoder(SEResNet34(), GhostVLAD()), torch.randn(size, 201, 257)
    return lambda: encoder(feats).square().sum().backward()


def split_corpus(size: int) -> Callable[[], None]:
    """Make a function that splits a corpus of so many utterances by speaker and makes its dataset."""
    speakers = [f"{number % 100:03d}" for number in range(size)]
    columns = {"path": "a.wav", "emotion": ["happy", "sad"] * (size // 2), "speaker": speakers}
    columns |= {"prepared": "a.npy", "fault": ""}

    def split() -> None:
        table = pd.DataFrame({"id": [f"u{number}" for number in range(size)], **columns})
        parts = fold_parts(Corpus("grown", ("happy", "sad"), table), 1)
        make_dataset(parts["train"], "emotion", ["happy", "sad"], 2.0)

    return split


def once(make: Callable[[int], Callable[[], None]], size: int) -> None:
    """Make a function and call it once, in a fresh process."""
    keep_memory()  # as the recipes do
    make(size)()


def seconds(make: Callable[[int], Callable[[], None]], sizes: Sequence[int]) -> list[float]:
    """Time what ``make`` makes, at each size."""
    return [alternate(make(size), repeats=2)[0] for size in sizes]


def mebibytes(make: Callable[[int], Callable[[], None]], sizes: Sequence[int]) -> list[float]:
    """Return the MiB that it adds to the peak memory of a fresh process, at each size."""
    costs = [fresh(once, make, size) for size in sizes]
    return [cost.added if cost else float("inf") for cost in costs]


MEASURED = {
    "seconds of a clip": (embed_clip, SECONDS),
    "utterances of a batch": (train_batch, BATCHES),
    "utterances of a corpus": (split_corpus, UTTERANCES),
}


def processes(ranks: int, batch: int = 32) -> float:
    """Return the seconds of a step of one global batch, over so many processes of one thread."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "step.py"
        script.write_text(STEP.format(ranks=ranks, batch=batch))
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(ranks)]
        command = [*launcher, str(script)] if ranks > 1 else [sys.executable, str(script)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    return max(float(line) for line in done.stdout.split())


def draw(curves: dict[str, tuple[Sequence[int], list[float], list[float]]], path: Path) -> None:
    """Draw time (above) and memory (below) on logarithmic axes, with their slopes."""
    figure = Figure(figsize=(3.6 * len(curves), 6), layout="constrained")
    for column, (name, (sizes, *measured)) in zip(figure.subplots(2, len(curves)).T, curves.items(), strict=True):
        for axes, unit, values in zip(column, ("seconds", "MiB"), measured, strict=True):
            axes.loglog(sizes, values, "o-")
            axes.set(xlabel=name, ylabel=unit, title=f"slope {slope(sizes, values):.2f}")
            axes.grid(alpha=0.3)
    with atomic_path(path) as part:
        figure.savefig(part, dpi=110, format="png")


def run() -> Iterator[Row]:
    """Measure, and draw benchmarks/results/growth.png."""
    curves = {name: (sizes, seconds(make, sizes), mebibytes(make, sizes)) for name, (make, sizes) in MEASURED.items()}
    draw(curves, Path("benchmarks/results/growth.png"))
    for name, (sizes, *measured) in curves.items():
        for what, unit, values in zip(("time", "memory"), ("s", "MiB"), measured, strict=True):
            ends = [f"{sizes[end]:,}: {values[end]:.3g} {unit}" for end in (-1, 0)]
            yield Row(f"exponent of {what} in {name}", *ends, slope(sizes, values), most=1.1)
    one, two = processes(1), processes(2)
    yield Row("a step over two processes, against one", f"{two:.2f} s", f"{one:.2f} s", one / two, least=1.5)
