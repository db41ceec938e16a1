"""Figures of emotion over time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ser_plugins.evaluation.figures import COLOURS, styled
from ser_plugins.inference.segmentation import segments
from ser_plugins.inference.timelines import NO_SPEECH
from ser_plugins.metric.wheel import EMOTIONS

GREY = "#e8e8e8"
OPAQUE = 0.85
NAMED = 0.09  # of the width: a shorter segment has no room for its emotion
BRIGHT = 1.3  # sum of red, green and blue: brighter segments have black text


def timeline_figure(frame: pd.DataFrame, path: str | os.PathLike[str], title: str | None = None) -> None:
    """Draw emotion over time: probabilities as stacked areas, silence in grey, and above them the segments.

    A window is drawn around its middle, half way to the middles of its neighbours. The segments are those of `segments`
    with its defaults.

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
    band, axes = figure.subplots(2, sharex=True, height_ratios=(1, 9))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(order)}
    axes.set_facecolor(GREY)
    areas = {"labels": shown, "colors": [colours[name] for name in shown]}
    axes.stackplot(edges, heights, **areas, alpha=OPAQUE, edgecolor="white", linewidth=0.3)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, 1), ylabel="probability", xlabel="time, minutes:seconds")
    band.set_title(title)
    _draw_segments(band, segments(frame), colours, edges[-1] - edges[0])
    axes.xaxis.set_major_formatter(lambda value, _: f"{int(value) // 60}:{value % 60:04.1f}".removesuffix(".0"))
    handles, names = axes.get_legend_handles_labels()
    if frame["emotion"].eq(NO_SPEECH).any():
        handles.append(axes.fill_between([], [], color=GREY))
        names.append(NO_SPEECH)
    figure.legend(handles[::-1], names[::-1], loc="outside right center")


def _draw_segments(axes: Axes, found: pd.DataFrame, colours: Mapping[str, str], width: float) -> None:
    """Draw segments as bars, with the emotion in those that are long enough."""
    axes.set(facecolor=GREY, ylim=(0, 1))
    axes.spines[:].set_visible(False)
    axes.tick_params(left=False, labelleft=False, bottom=False, labelbottom=False)
    for start, end, emotion in zip(found["start"], found["end"], found["emotion"], strict=True):
        axes.axvspan(start, end, color=colours[emotion], alpha=OPAQUE, linewidth=0)
        if end - start >= NAMED * width:
            colour = "white" if sum(to_rgb(colours[emotion])) < BRIGHT else "black"
            axes.text((start + end) / 2, 0.46, emotion, color=colour, ha="center", va="center", fontsize="small")


def _plateaus(frame: pd.DataFrame, numbers: pd.DataFrame) -> tuple[Any, Any]:
    """Return both edges of each window's plateau [2 N], and the probabilities there [labels, 2 N]."""
    middle = ((frame["start"] + frame["end"]) / 2).to_numpy(float)
    between = (middle[1:] + middle[:-1]) / 2
    bounds = np.concatenate([frame["start"].iloc[:1], between, frame["end"].iloc[-1:]])
    edges = np.stack([bounds[:-1], bounds[1:]], axis=1).ravel()
    return edges, np.repeat(numbers.to_numpy(float).T, 2, axis=1)
