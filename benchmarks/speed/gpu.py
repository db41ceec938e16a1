"""On a GPU: training steps with and without CUDA graphs, against other networks; the loss, and GhostVLAD."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from ser_plugins import GhostVLAD, TripletLoss
from speed.harness import Row, alternate, milliseconds
from speed.mining import MARGIN, SIZES, batch
from speed.pooling import BATCH as CLIPS
from speed.pooling import FRAMES, SIZE, textbook
from speed.step import BATCH, CLASSES, SAMPLES, Ours, ecapa, resnet, stepper


def synced(function: Callable[[], Any]) -> Callable[[], None]:
    """Make a function that calls another and waits for the GPU."""

    def call() -> None:
        function()
        torch.cuda.synchronize()

    return call


def run() -> Iterator[Row]:
    """Measure; no rows without a GPU."""
    if torch.cuda.is_available():
        for bfloat16 in (False, True):
            yield from steps(bfloat16)
        yield from losses()
        yield from poolings()


def steps(bfloat16: bool) -> Iterator[Row]:
    """Time training steps from waveforms, batch 32 of 2 s."""
    torch.manual_seed(0)
    wavs, labels = torch.randn(BATCH, SAMPLES, device="cuda"), torch.arange(BATCH, device="cuda") % CLASSES
    names = ("the same without graphs", "ECAPA-TDNN", "ResNet of SpeechBrain")
    models = [Ours(graphs=True).cuda(), Ours().cuda(), ecapa().cuda(), resnet().cuda()]
    own, *others = alternate(*(synced(stepper(model, wavs, labels, bfloat16)) for model in models), repeats=30)
    for name, seconds in zip(names, others, strict=True):
        case = f"training step as CUDA graphs, {'bfloat16' if bfloat16 else 'float32'}, against {name}"
        texts = [f"{milliseconds(one)}, {BATCH / one:.0f} utterances/s" for one in (own, seconds)]
        yield Row(case, *texts, seconds / own)


def losses() -> Iterator[Row]:
    """Time mining and loss, forward and backward, with the memory that they take."""
    for size in SIZES:
        embeddings, labels = (tensor.detach().cuda() for tensor in batch(size))
        embeddings.requires_grad_()
        (seconds,) = alternate(synced(lambda x=embeddings, y=labels: TripletLoss(MARGIN)(x, y).backward()), repeats=30)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        TripletLoss(MARGIN)(embeddings, labels).backward()
        added = (torch.cuda.max_memory_allocated() - before) / 2**20
        yield Row(f"mining and loss, B = {size}", f"{milliseconds(seconds)}, {added:.0f} MiB", "")


def poolings() -> Iterator[Row]:
    """Compare GhostVLAD, forward and backward with lengths, with the form that stores all residuals."""
    pooling = GhostVLAD(SIZE).cuda()
    for name, frames in FRAMES.items():
        x = torch.randn(CLIPS, frames, SIZE, device="cuda", requires_grad=True)
        lengths = torch.randint(1, frames + 1, (CLIPS,), device="cuda") / frames
        own, other = alternate(
            synced(lambda x=x, n=lengths: pooling(x, n).sum().backward()),
            synced(lambda x=x, n=lengths: textbook(pooling, x, n).sum().backward()),
            repeats=30,
        )
        yield Row(f"GhostVLAD, batch {CLIPS} × {name}", milliseconds(own), milliseconds(other), other / own)
