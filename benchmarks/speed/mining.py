"""Mining and loss, forward and backward: against pytorch-metric-learning's semi-hard miner and triplet loss."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ser_plugins import TripletLoss
from speed.harness import Row, alternate, fresh, milliseconds

SIZES = (32, 256, 2048)
CLASSES, DIMENSIONS, MARGIN = 8, 512, 0.1


def batch(size: int) -> tuple[Tensor, Tensor]:
    """Make embeddings of overlapping classes, and their labels."""
    torch.manual_seed(0)
    labels = torch.arange(size) % CLASSES
    return (torch.randn(CLASSES, DIMENSIONS)[labels] + 2 * torch.randn(size, DIMENSIONS)).requires_grad_(), labels


def ours(size: int) -> None:
    """Compute our loss."""
    embeddings, labels = batch(size)
    TripletLoss(MARGIN)(embeddings, labels).backward()


def theirs(size: int) -> None:
    """Compute theirs, over all semi-hard triplets of the batch."""
    from pytorch_metric_learning.losses import TripletMarginLoss
    from pytorch_metric_learning.miners import TripletMarginMiner

    embeddings, labels = batch(size)
    triplets = TripletMarginMiner(MARGIN, type_of_triplets="semihard")(embeddings, labels)
    TripletMarginLoss(MARGIN)(embeddings, labels, triplets).backward()


def run() -> Iterator[Row]:
    """Measure; the memory of a fresh process includes the batch and late imports."""
    for size in SIZES:
        name = f"mining and loss, B = {size}"
        memory, other_memory = fresh(ours, size), fresh(theirs, size)
        assert memory is not None
        least = 3.0 if size == max(SIZES) else None
        if other_memory is None:
            yield Row(
                name, f"{milliseconds(memory.seconds)}, {memory.added:.0f} MiB", "more than 12 GiB", float("inf"), least
            )
            continue
        own, other = alternate(lambda size=size: ours(size), lambda size=size: theirs(size))
        texts = [f"{milliseconds(s)}, {m.added:.0f} MiB" for s, m in ((own, memory), (other, other_memory))]
        yield Row(name, *texts, other / own, least)
