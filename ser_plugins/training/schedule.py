"""Learning rates over the epochs, as shares of ``lr``: for ``lr_schedule`` of a recipe."""

from __future__ import annotations

import math


def steps(epoch: int, every: int) -> float:
    """Divide by 10 after each ``every`` epochs; ``epoch`` counts from 1.

    Example
    -------
    >>> [steps(epoch, every=2) for epoch in (1, 2, 3, 5)]
    [1.0, 1.0, 0.1, 0.010000000000000002]
    """
    return float(0.1 ** ((epoch - 1) // every))


def cosine(epoch: int, epochs: int, warmup: int = 0) -> float:
    """Rise evenly in the first ``warmup`` epochs, then fall along half a cosine that would be at 0 after the last.

    Loshchilov and Hutter, ICLR 2017, without restarts.

    Example
    -------
    >>> [round(cosine(epoch, epochs=6, warmup=2), 3) for epoch in range(1, 7)]
    [0.333, 0.667, 1.0, 0.854, 0.5, 0.146]
    """
    if epoch <= warmup:
        return epoch / (warmup + 1)
    return (1 + math.cos(math.pi * (epoch - warmup - 1) / (epochs - warmup))) / 2
