"""GhostVLAD, forward and backward with lengths: against the form that stores all B × T × K × D residuals."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from ser_plugins import GhostVLAD
from speed.harness import Row, alternate, milliseconds

BATCH, SIZE = 32, 128
FRAMES = {"2 s": 13, "10 s": 63, "60 s": 376}


def textbook(pooling: GhostVLAD, descriptors: Tensor, lengths: Tensor) -> Tensor:
    """Compute equation (1) of the paper as it is written."""
    assignment = pooling.assignment(descriptors).softmax(-1)[..., : pooling.clusters]
    frames = torch.arange(descriptors.shape[1], device=descriptors.device)
    assignment = assignment * (frames < torch.round(lengths * descriptors.shape[1]).unsqueeze(1)).unsqueeze(-1)
    residuals = descriptors.unsqueeze(2) - pooling.centres
    vlad = (assignment.unsqueeze(-1) * residuals).sum(1)
    return functional.normalize(functional.normalize(vlad, dim=-1).flatten(1), dim=-1)


def run() -> Iterator[Row]:
    """Measure; the results are compared first."""
    torch.manual_seed(0)
    pooling = GhostVLAD(SIZE)
    for name, frames in FRAMES.items():
        descriptors = torch.randn(BATCH, frames, SIZE, requires_grad=True)
        lengths = torch.randint(1, frames + 1, (BATCH,)) / frames
        weights = torch.randn(BATCH, pooling.output_size)
        torch.testing.assert_close(pooling(descriptors, lengths), textbook(pooling, descriptors, lengths))
        own, other = alternate(
            lambda x=descriptors, n=lengths, w=weights: (pooling(x, n) * w).sum().backward(),
            lambda x=descriptors, n=lengths, w=weights: (textbook(pooling, x, n) * w).sum().backward(),
            repeats=20,
        )
        yield Row(f"GhostVLAD, batch {BATCH} × {name}", milliseconds(own), milliseconds(other), other / own, 3)
