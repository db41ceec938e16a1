"""Figures from results on disk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ser_plugins.files import atomic_path

FIELD = re.compile(r"([a-z][a-z_ ]*): ([-+.\deinfa]+)")
LONG = {"accuracy": "accuracy", "eer": "equal error rate"}


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


def read_log(path: Path) -> pd.DataFrame:
    """Read SpeechBrain's ``train_log.txt``: one row an epoch, columns ``epoch``, ``train loss``, ``valid eer`` …

    Example
    -------
    >>> path = getfixture("tmp_path") / "train_log.txt"
    >>> _ = path.write_text("epoch: 1, lr: 1.00e-03 - train loss: 2.5 - valid loss: 2.1, valid eer: 1.2e-01")
    >>> read_log(path).to_dict("list")
    {'epoch': [1.0], 'lr': [0.001], 'train loss': [2.5], 'valid loss': [2.1], 'valid eer': [0.12]}
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    table = pd.DataFrame([{name: float(value) for name, value in FIELD.findall(line)} for line in lines])
    # A run that was killed between an epoch's line and its checkpoint validates that epoch again.
    return table.drop_duplicates("epoch", keep="last", ignore_index=True)


def curve_figure(log: Path, title: str, path: Path) -> None:
    """Draw loss, accuracy and, where it was measured, equal error rate over the epochs of a ``train_log.txt``."""
    table = read_log(log)
    results = [name for name in ("accuracy", "eer") if f"valid {name}" in table]
    figure = Figure(figsize=(3.4 * (1 + len(results)), 3.2), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, 1 + len(results))), ["loss", *results], strict=True):
        factor = 1 if name == "loss" else 100
        for part, style in (("train", "--"), ("valid", "-")):
            if f"{part} {name}" in table:
                axes.plot(table["epoch"], factor * table[f"{part} {name}"], style, label=part)
        axes.set(xlabel="epoch", ylabel=name if name == "loss" else f"{LONG[name]}, %")
        axes.legend()
    figure.suptitle(title, fontsize=10)
    with atomic_path(path) as part_path:
        figure.savefig(part_path, dpi=110, format="png")
