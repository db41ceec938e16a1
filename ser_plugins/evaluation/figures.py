"""Figures of a run, in one style: each a PNG and an SVG of the same name."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ser_plugins.files import atomic_path

# Colours of Okabe and Ito, distinct for colour-blind readers; yellow, faint on white, is the last.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#000000", "#E69F00", "#F0E442")
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "text.parse_math": False,  # names may contain dollar signs
    "svg.hashsalt": "ser-plugins",  # the same figure gives the same bytes
}
ENDS = ("value", "low", "high")  # of a measure with its interval
NO_DATE: dict[str, Any] = {"metadata": {"Date": None}}

FIELD = re.compile(r"([a-z][a-z_ ]*): ([-+.\deinfa]+)")
# Label and factor of each result that a curve may show.
RESULTS = {
    "accuracy": ("accuracy, %", 100),
    "eer": ("equal error rate, %", 100),
    "frame_error": ("error of the frames", 1),
    "cosine": ("cosine of the embeddings", 1),
}


@contextmanager
def styled(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Yield a figure, size in inches, that is saved as PNG at ``path`` and as SVG if the block succeeds."""
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        for suffix, options in ((".png", {"dpi": 110}), (".svg", NO_DATE)):
            with atomic_path(path.with_suffix(suffix)) as part:
                figure.savefig(part, format=suffix[1:], **options)


def svg(draw: Callable[[Figure], None], width: float, height: float) -> bytes:
    """Draw a figure, size in inches, and return it as SVG."""
    content = io.BytesIO()
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        figure.savefig(content, format="svg", **NO_DATE)
    return content.getvalue()


def confusion_figure(confusion: Sequence[Sequence[int]], labels: Sequence[str], title: str, path: Path) -> None:
    """Draw a confusion matrix in percent of each true emotion.

    Parameters
    ----------
    confusion : sequence of sequences of int
        Counts; rows are true, columns predicted.
    labels : sequence of str
        Emotions in that order.
    title : str
        Title of the figure.
    path : pathlib.Path
        PNG file to write, with an SVG of the same name.
    """
    size = confusion_size(labels)
    with styled(path, size, size) as figure:
        draw_confusion(figure, confusion, labels, title)


def confusion_size(labels: Sequence[str]) -> float:
    """Return the width and height of the figure of a confusion matrix in inches."""
    return 2.6 + 0.62 * len(labels)


def draw_confusion(figure: Figure, confusion: Sequence[Sequence[int]], labels: Sequence[str], title: str) -> None:
    """Draw a confusion matrix into a figure; see `confusion_figure`."""
    counts = np.asarray(confusion, dtype=float)
    percent = 100 * counts / counts.sum(1, keepdims=True).clip(min=1)
    axes = figure.subplots()
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    axes.spines[:].set_visible(False)
    for i, row in enumerate(percent):
        for j, value in enumerate(row):
            axes.text(j, i, f"{value:.0f}", ha="center", va="center", color="white" if value > 55 else "black")
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="predicted", ylabel="true (rows add up to 100 %)", title=title)


def draw_actors(figure: Figure, actors: Sequence[Mapping[str, Any]]) -> None:
    """Draw the accuracy of each actor, lowest first."""
    values = sorted(100 * one["accuracy"] for one in actors)
    axes = figure.subplots()
    axes.plot(range(1, len(values) + 1), values, "o", markersize=4)
    axes.axhline(float(np.mean(values)), linestyle="--", color=COLOURS[1], label="mean")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="actors, by accuracy", ylabel="accuracy, %", ylim=(0, 100))
    axes.legend()


def draw_reliability(figure: Figure, bins: Sequence[Mapping[str, float]]) -> None:
    """Draw accuracy against confidence; the area of a point grows with the utterances of its bin."""
    table = pd.DataFrame(bins)
    axes = figure.subplots()
    axes.plot([0, 100], [0, 100], "--", color="grey", label="calibrated")
    axes.plot(100 * table["confidence"], 100 * table["accuracy"], color=COLOURS[0])
    sizes = 4 + 200 * table["utterances"] / table["utterances"].sum()
    axes.scatter(100 * table["confidence"], 100 * table["accuracy"], sizes, color=COLOURS[0], label="predictions")
    axes.set(xlabel="confidence, %", ylabel="accuracy, %", xlim=(0, 102), ylim=(0, 102), aspect="equal")
    axes.legend()


def draw_coverage(figure: Figure, points: Sequence[Mapping[str, float]]) -> None:
    """Draw the accuracy of the most confident predictions against their share."""
    table = pd.DataFrame(points)
    axes = figure.subplots()
    axes.plot(100 * table["coverage"], 100 * table["accuracy"])
    axes.set(xlabel="coverage: answered utterances, most confident first, %", ylabel="accuracy, %", ylim=(0, 102))


def draw_stress(figure: Figure, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw the UAR of each distortion with its interval; the dashed line is that of the first row."""
    found = [[100 * row["uar"][end] if row["uar"][end] is not None else np.nan for end in ENDS] for row in rows]
    values, lows, highs = np.array(found).T
    places = np.arange(len(rows))
    axes = figure.subplots()
    axes.hlines(places, lows, highs, color=COLOURS[4], linewidth=3)
    axes.plot(values, places, "o", color=COLOURS[0], markersize=5)
    axes.axvline(values[0], linestyle="--", color="grey", linewidth=1)
    axes.set_yticks(places, [row["distortion"] for row in rows])
    axes.invert_yaxis()
    axes.set(xlabel="UAR, %, and 95 % interval over actors", xlim=(0, 100))


def read_log(path: Path) -> pd.DataFrame:
    """Read SpeechBrain's ``train_log.txt``: one row per epoch, columns ``epoch``, ``train loss``, ``valid eer`` …

    Example
    -------
    >>> path = getfixture("tmp_path") / "train_log.txt"
    >>> _ = path.write_text("epoch: 1, lr: 1.00e-03 - train loss: 2.5 - valid loss: 2.1, valid eer: 1.2e-01")
    >>> read_log(path).to_dict("list")
    {'epoch': [1.0], 'lr': [0.001], 'train loss': [2.5], 'valid loss': [2.1], 'valid eer': [0.12]}
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    table = pd.DataFrame([{name: float(value) for name, value in FIELD.findall(line)} for line in lines])
    # A run killed between the line of an epoch and its checkpoint validates the epoch again.
    return table.drop_duplicates("epoch", keep="last", ignore_index=True)


def curve_figure(log: Path, title: str, path: Path) -> None:
    """Draw the loss and what else was measured (`RESULTS`) over the epochs of a ``train_log.txt``."""
    table = read_log(log)
    labels = {"loss": ("loss", 1), **{name: label for name, label in RESULTS.items() if f"valid {name}" in table}}
    with styled(path, 3.4 * len(labels), 3.2) as figure:
        places = np.atleast_1d(figure.subplots(1, len(labels)))
        for axes, (name, (label, factor)) in zip(places, labels.items(), strict=True):
            for part, style, colour in (("train", "--", COLOURS[0]), ("valid", "-", COLOURS[1])):
                if f"{part} {name}" in table:
                    axes.plot(table["epoch"], factor * table[f"{part} {name}"], style, color=colour, label=part)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set(xlabel="epoch", ylabel=label)
            axes.legend()
        figure.suptitle(title)
