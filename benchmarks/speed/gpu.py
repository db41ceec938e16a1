"""On a GPU, where there is one: training steps as CUDA graphs and not, of ours and others, the loss, and GhostVLAD."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ser_plugins import GhostVLAD, TripletLoss
from ser_plugins.training.graphs import EncoderGraphs
from speed.harness import Row, alternate, milliseconds
from speed.mining import MARGIN, SIZES, batch
from speed.pooling import BATCH as CLIPS
from speed.pooling import FRAMES, SIZE, textbook
from speed.step import BATCH, LABELS, SAMPLES, Ours, ecapa, resnet, stepper


class Graphed(Ours):
    """The encoder's passes as CUDA graphs."""

    def __init__(self) -> None:
        super().__init__()
        self.cuda()
        self.graphs = EncoderGraphs(self.encoder)

    def embed(self, feats: Tensor, lengths: Tensor) -> Tensor:
        return self.graphs(feats, lengths)


def synced(function: Callable[[], Any]) -> Callable[[], None]:
    """Wait until all that a call began is done."""

    def call() -> None:
        function()
        torch.cuda.synchronize()

    return call


def run() -> Iterator[Row]:
    """Measure."""
    if torch.cuda.is_available():
        for bfloat16 in (False, True):
            yield from steps(bfloat16)
        yield from losses()
        yield from poolings()


def steps(bfloat16: bool) -> Iterator[Row]:
    """From waveforms to new weights, batch 32 of 2 s."""
    torch.manual_seed(0)
    wavs, labels = torch.randn(BATCH, SAMPLES, device="cuda"), torch.arange(BATCH, device="cuda") % len(LABELS)
    names = ("the same without graphs", "ECAPA-TDNN", "ResNet of SpeechBrain")
    models = [Graphed(), Ours().cuda(), ecapa().cuda(), resnet().cuda()]
    own, *others = alternate(*(synced(stepper(model, wavs, labels, bfloat16)) for model in models), repeats=30)
    for name, seconds in zip(names, others, strict=True):
        case = f"training step as CUDA graphs, {'bfloat16' if bfloat16 else 'float32'}, against {name}"
        texts = [f"{milliseconds(one)}, {BATCH / one:.0f} utterances/s" for one in (own, seconds)]
        yield Row(case, *texts, seconds / own)


def losses() -> Iterator[Row]:
    """Mining and loss, forward and backward, and the memory that they take."""
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
    """GhostVLAD, forward and backward with lengths, against all residuals at once."""
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
