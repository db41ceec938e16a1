"""Learning rates over the epochs."""

from __future__ import annotations

import math


def _check(name: str, value: float, least: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < least:
        raise ValueError(f"{name} must be a number of at least {least:g}, got {value!r}")


class StepSchedule:
    """Divide the learning rate by 10 after each ``every`` epochs, as the paper does every 20.

    Parameters
    ----------
    lr : float
        Learning rate of the first epoch.
    every : int
        Epochs of one rate, at least 1.

    Example
    -------
    >>> [round(StepSchedule(1.0, every=2)(epoch), 3) for epoch in (1, 2, 3, 5)]
    [1.0, 1.0, 0.1, 0.01]
    """

    def __init__(self, lr: float, every: int = 20) -> None:
        _check("lr", lr, 0)
        _check("every", every, 1)
        self.lr, self.every = lr, every

    def __call__(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 1."""
        return float(self.lr * 0.1 ** ((epoch - 1) // self.every))


class CosineSchedule:
    """Rise evenly in the first ``warmup`` epochs, then fall along half a cosine to 0 after the last.

    Loshchilov and Hutter, ICLR 2017, without restarts.

    Parameters
    ----------
    lr : float
        Highest learning rate.
    epochs : int
        Length of the training.
    warmup : int
        Epochs of the rise.

    Example
    -------
    >>> [round(CosineSchedule(1.0, epochs=6, warmup=2)(epoch), 3) for epoch in range(1, 7)]
    [0.333, 0.667, 1.0, 0.854, 0.5, 0.146]
    """

    def __init__(self, lr: float, epochs: int, warmup: int = 1) -> None:
        _check("lr", lr, 0)
        _check("epochs", epochs, 1)
        _check("warmup", warmup, 0)
        self.lr, self.epochs, self.warmup = lr, epochs, warmup

    def __call__(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 1."""
        if epoch <= self.warmup:
            return self.lr * epoch / (self.warmup + 1)
        share = (epoch - self.warmup - 1) / max(1, self.epochs - self.warmup)
        return self.lr * (1 + math.cos(math.pi * share)) / 2
