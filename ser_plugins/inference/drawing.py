"""Figures of emotion over time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ser_plugins.evaluation.figures import COLOURS, styled
from ser_plugins.inference.timelines import NO_SPEECH
from ser_plugins.metric.wheel import EMOTIONS

GREY = "#e8e8e8"


def timeline_figure(frame: pd.DataFrame, path: str | os.PathLike[str], title: str | None = None) -> None:
    """Draw emotion over time: probabilities as stacked areas, silence in grey.

    A window is drawn around its middle, half way to the middles of its neighbours.

    Parameters
    ----------
    frame : pandas.DataFrame
        As `timeline` returns it; all columns of numbers except ``start`` and ``end`` are labels.
    path : str or os.PathLike
        PNG file to write; an SVG is written beside it.
    title : str, optional
        Title of the figure; by default the name of the recording.

    Example
    -------
    >>> rows = {"path": "talk.wav", "start": [0, 1, 2], "end": [3, 4, 5], "emotion": ["sad", "silence", "happy"]}
    >>> frame = pd.DataFrame({**rows, "happy": [0.2, None, 0.9], "sad": [0.8, None, 0.1]})
    >>> timeline_figure(frame, getfixture("tmp_path") / "talk.png")
    """
    with styled(Path(path), 9, 2.9) as figure:
        draw_timeline(figure, frame, title or os.path.basename(str(frame["path"].iloc[0])))


def draw_timeline(figure: Figure, frame: pd.DataFrame, title: str) -> None:
    """Draw emotion over time into a figure; see `timeline_figure`."""
    numbers = frame.select_dtypes("number").drop(columns=["start", "end"])
    # There are no more colours: the labels with the highest mean probability are drawn.
    shown = [str(name) for name in numbers.mean().nlargest(len(COLOURS)).index]
    order = list(dict.fromkeys([*EMOTIONS, *numbers.columns.astype(str)]))
    shown.sort(key=order.index)
    edges, heights = _plateaus(frame, numbers[shown])
    axes = figure.subplots()
    colours = [COLOURS[order.index(name) % len(COLOURS)] for name in shown]
    axes.set_facecolor(GREY)
    axes.stackplot(edges, heights, labels=shown, colors=colours, alpha=0.85, edgecolor="white", linewidth=0.3)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, 1), ylabel="probability", xlabel="time, minutes:seconds", title=title)
    axes.xaxis.set_major_formatter(lambda value, _: f"{int(value) // 60}:{value % 60:04.1f}".removesuffix(".0"))
    handles, names = axes.get_legend_handles_labels()
    if frame["emotion"].eq(NO_SPEECH).any():
        handles.append(axes.fill_between([], [], color=GREY))
        names.append(NO_SPEECH)
    figure.legend(handles[::-1], names[::-1], loc="outside right center")


def _plateaus(frame: pd.DataFrame, numbers: pd.DataFrame) -> tuple[Any, Any]:
    """Return both edges of each window's plateau [2 N], and the probabilities there [labels, 2 N]."""
    middle = ((frame["start"] + frame["end"]) / 2).to_numpy(float)
    between = (middle[1:] + middle[:-1]) / 2
    bounds = np.concatenate([frame["start"].iloc[:1], between, frame["end"].iloc[-1:]])
    edges = np.stack([bounds[:-1], bounds[1:]], axis=1).ravel()
    return edges, np.repeat(numbers.to_numpy(float).T, 2, axis=1)
