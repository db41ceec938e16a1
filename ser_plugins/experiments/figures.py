"""Figures of the paper: embeddings by t-SNE, and accuracy against a setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from ser_plugins.evaluation.figures import COLOURS, styled
from ser_plugins.metric.wheel import EMOTIONS

MARKERS = "osD^vPX"  # 7 markers and 8 colours: 56 distinct pairs


def project(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Project embeddings [N, E] to [N, 2] by t-SNE, after scaling them to unit length as in the losses.

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
    """Draw t-SNE of several sets of embeddings side by side.

    Parameters
    ----------
    panels : mapping
        Name of each panel to its embeddings [N, E] and their N emotions.
    labels : sequence of str
        All emotions. An emotion of RAVDESS has the same colour and marker in the figures of all corpora.
    title : str
        Title of the figure.
    path : pathlib.Path
        PNG file to write; an SVG is written beside it.
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
    """Draw accuracy against a setting: a line per strategy, its folds as dots.

    Parameters
    ----------
    table : pandas.DataFrame
        One row per fold: ``strategy``, ``value`` of the setting, ``accuracy`` and ``valid_accuracy``.
    key : str
        Name of the setting.
    title : str
        Title of the figure.
    path : pathlib.Path
        PNG file to write; an SVG is written beside it.
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
