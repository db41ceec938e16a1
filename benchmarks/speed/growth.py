"""How time grows: with the length of a clip, the batch, the corpus, and the number of processes; log-log slopes."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from ser_plugins import GhostVLAD, SEResNet34, Spectrogram, UtteranceEncoder
from ser_plugins.audio.spectrogram import SpectrogramNorm
from ser_plugins.corpora.folds import fold_parts
from ser_plugins.corpora.manifest import Corpus
from ser_plugins.files import atomic_path
from ser_plugins.training.data import make_dataset
from speed.harness import Row, alternate

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
encoder = UtteranceEncoder(SEResNet34(), GhostVLAD(128))
model = torch.nn.parallel.DistributedDataParallel(encoder) if ranks > 1 else encoder
feats = torch.randn({batch} // ranks, 201, 257)
for step in range(5):
    if step == 2:
        start = time.perf_counter()
    model(feats).square().sum().backward()
print((time.perf_counter() - start) / 3)
"""


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Exponent of the growth, over the larger half of the sizes: what is constant has little part in them."""
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half:]), np.log(seconds[half:]), 1)[0])


def lengths(encoder: UtteranceEncoder) -> list[float]:
    """Seconds to embed one clip of each length."""
    features, norm = Spectrogram(), SpectrogramNorm()

    def embed(wavs: torch.Tensor) -> None:
        with torch.no_grad():
            encoder(norm(features(wavs)))

    encoder.eval()
    return [alternate(partial(embed, torch.randn(1, 16000 * length)), repeats=3)[0] for length in SECONDS]


def batches(encoder: UtteranceEncoder) -> list[float]:
    """Seconds of a training step of each batch."""
    encoder.train()

    def step(feats: torch.Tensor) -> None:
        encoder(feats).square().sum().backward()

    return [alternate(partial(step, torch.randn(size, 201, 257)), repeats=2)[0] for size in BATCHES]


def corpora() -> list[float]:
    """Seconds to split a corpus of each size by speaker and make its dataset."""

    def split(size: int) -> None:
        speakers = [f"{number % 100:03d}" for number in range(size)]
        columns = {
            "path": "a.wav",
            "emotion": ["happy", "sad"] * (size // 2),
            "speaker": speakers,
            "prepared": "a.npy",
            "fault": "",
        }
        table = pd.DataFrame({"id": [f"u{number}" for number in range(size)], **columns})
        parts = fold_parts(Corpus("grown", ("happy", "sad"), table), 1)
        make_dataset(parts["train"], "emotion", ["happy", "sad"], 2.0)

    return [alternate(lambda size=size: split(size), repeats=2)[0] for size in UTTERANCES]


def processes(ranks: int, batch: int = 32) -> float:
    """Seconds of a step of one global batch, over so many processes of one thread."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "step.py"
        script.write_text(STEP.format(ranks=ranks, batch=batch))
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(ranks)]
        command = [*launcher, str(script)] if ranks > 1 else [sys.executable, str(script)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    return max(float(line) for line in done.stdout.split())


def draw(curves: dict[str, tuple[Sequence[float], Sequence[float]]], path: Path) -> None:
    """Draw log-log curves with their slopes."""
    figure = Figure(figsize=(3.6 * len(curves), 3.2), layout="constrained")
    for axes, (name, (sizes, seconds)) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
        axes.loglog(sizes, seconds, "o-")
        axes.set(xlabel=name, ylabel="seconds", title=f"slope {slope(sizes, seconds):.2f}")
        axes.grid(alpha=0.3)
    with atomic_path(path) as part:
        figure.savefig(part, dpi=110, format="png")


def run() -> Iterator[Row]:
    """Measure, and draw benchmarks/results/growth.png."""
    encoder = UtteranceEncoder(SEResNet34(), GhostVLAD(128))
    measured: dict[str, tuple[Sequence[float], Callable[[], list[float]]]] = {
        "seconds of a clip": (SECONDS, lambda: lengths(encoder)),
        "utterances of a batch": (BATCHES, lambda: batches(encoder)),
        "utterances of a corpus": (UTTERANCES, corpora),
    }
    curves = {name: (sizes, measure()) for name, (sizes, measure) in measured.items()}
    draw(curves, Path("benchmarks/results/growth.png"))
    for name, (sizes, seconds) in curves.items():
        ends = f"{sizes[-1]:,}: {seconds[-1]:.3g} s", f"{sizes[0]:,}: {seconds[0]:.3g} s"
        yield Row(f"exponent of time in {name}", *ends, slope(sizes, seconds), most=1.1)
    one, two = processes(1), processes(2)
    yield Row("a step over two processes, against one", f"{two:.2f} s", f"{one:.2f} s", one / two, least=1.5)
