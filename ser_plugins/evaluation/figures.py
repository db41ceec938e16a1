"""Figures from results on disk, in one style: each a PNG, and an SVG beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from ser_plugins.files import atomic_path

# Okabe and Ito's colours, which the colour-blind tell apart; yellow last, which is faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#000000", "#E69F00", "#F0E442")
MARKERS = "osD^vPX"  # as many as make each pair of colour and marker return after 56
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "text.parse_math": False,  # names may have dollar signs
    "svg.hashsalt": "ser-plugins",  # the same figure is the same file
}
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")

FIELD = re.compile(r"([a-z][a-z_ ]*): ([-+.\deinfa]+)")
LONG = {"accuracy": "accuracy", "eer": "equal error rate"}


@contextmanager
def styled(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Yield a figure of some inches; it is written to ``path``, a PNG, and as SVG, if the block succeeds."""
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        for suffix, options in ((".png", {"dpi": 110}), (".svg", {"metadata": {"Date": None}})):
            with atomic_path(path.with_suffix(suffix)) as part:
                figure.savefig(part, format=suffix[1:], **options)


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
        PNG file to write; the SVG stands beside it.
    """
    counts = np.asarray(confusion, dtype=float)
    percent = 100 * counts / counts.sum(1, keepdims=True).clip(min=1)
    size = 2.6 + 0.62 * len(labels)
    with styled(path, size, size) as figure:
        axes = figure.subplots()
        axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
        axes.spines[:].set_visible(False)
        for i, row in enumerate(percent):
            for j, value in enumerate(row):
                axes.text(j, i, f"{value:.0f}", ha="center", va="center", color="white" if value > 55 else "black")
        axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
        axes.set_yticks(range(len(labels)), labels)
        axes.set(xlabel="predicted", ylabel="true (rows add up to 100 %)", title=title)


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
    with styled(path, 3.4 * (1 + len(results)), 3.2) as figure:
        for axes, name in zip(np.atleast_1d(figure.subplots(1, 1 + len(results))), ["loss", *results], strict=True):
            factor = 1 if name == "loss" else 100
            for part, style, colour in (("train", "--", COLOURS[0]), ("valid", "-", COLOURS[1])):
                if f"{part} {name}" in table:
                    axes.plot(table["epoch"], factor * table[f"{part} {name}"], style, color=colour, label=part)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set(xlabel="epoch", ylabel=name if name == "loss" else f"{LONG[name]}, %")
            axes.legend()
        figure.suptitle(title)


def project(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lay embeddings [N, E], scaled to unit length as the losses compare them, out on a plane by t-SNE: [N, 2].

    Example
    -------
    >>> project(np.eye(8, dtype=np.float32)).shape
    (8, 2)
    """
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True).clip(1e-12)
    perplexity = min(30.0, (len(units) - 1) / 3)
    points: NDArray[np.float32] = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(units)
    return points


def tsne_figure(
    panels: Mapping[str, tuple[NDArray[np.float32], Sequence[str]]], labels: Sequence[str], title: str, path: Path
) -> None:
    """Draw t-SNE of embeddings side by side.

    Parameters
    ----------
    panels : mapping
        Name of a panel to its embeddings [N, E] and their N emotions.
    labels : sequence of str
        All emotions. Those of RAVDESS have the same colour and marker in the figure of any corpus.
    title : str
        Title of the figure.
    path : pathlib.Path
        PNG file to write; the SVG stands beside it.
    """
    order = list(dict.fromkeys([*EMOTIONS, *labels]))
    with styled(path, 3 * len(panels) + 1.2, 3.5) as figure:
        for axes, (name, (embeddings, emotions)) in zip(
            np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True
        ):
            points, given = project(embeddings), np.asarray(emotions)
            for label in labels:
                i = order.index(label)
                style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
                axes.scatter(*points[given == label].T, s=22, linewidths=0.3, label=label, **style)
            axes.set(title=name, xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color="lightgrey")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
        figure.suptitle(title)


def sweep_figure(table: pd.DataFrame, key: str, title: str, path: Path) -> None:
    """Draw accuracy against a setting: a line a strategy, its folds as dots.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a fold: ``strategy``, ``value`` of the setting, ``accuracy`` and ``valid_accuracy``.
    key : str
        Name of the setting.
    title : str
        Title of the figure.
    path : pathlib.Path
        PNG file to write; the SVG stands beside it.
    """
    with styled(path, 4.6, 3.4) as figure:
        axes = figure.subplots()
        for colour, (strategy, part) in zip(COLOURS, table.groupby("strategy"), strict=False):
            means = 100 * part.groupby("value")[["accuracy", "valid_accuracy"]].mean()
            axes.plot(means.index, means["accuracy"], "o-", color=colour, label=f"{strategy}, test")
            axes.plot(means.index, means["valid_accuracy"], "--", color=colour, label=f"{strategy}, validation")
            axes.scatter(part["value"], 100 * part["accuracy"], s=10, alpha=0.4, linewidths=0, color=colour)
        axes.set(xlabel=key, ylabel="accuracy, %", title=title, xticks=sorted(set(table["value"])))
        axes.legend()
