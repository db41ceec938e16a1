"""Figures from results on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ser_plugins.files import atomic_path


def confusion_figure(confusion: Sequence[Sequence[int]], labels: Sequence[str], title: str, path: Path) -> None:
    """Draw a confusion matrix, in percent of each true emotion.

    Parameters
    ----------
    confusion : sequence of sequences of int
        Counts; rows are true, columns predicted.
    labels : sequence of str
        Emotions in that order.
    title : str
        Title of the figure.
    path : pathlib.Path
        PNG file to write.
    """
    counts = np.asarray(confusion, dtype=float)
    percent = 100 * counts / counts.sum(1, keepdims=True).clip(min=1)
    size = 2.6 + 0.62 * len(labels)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    for i, row in enumerate(percent):
        for j, value in enumerate(row):
            axes.text(j, i, f"{value:.0f}", ha="center", va="center", color="white" if value > 55 else "black")
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="predicted", ylabel="true (rows add up to 100 %)", title=title)
    with atomic_path(path) as part:
        figure.savefig(part, dpi=110, format="png")
