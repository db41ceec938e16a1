"""Emotion over time in recordings of any length, in the memory of a few windows."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from speechbrain.inference.classifiers import EncoderClassifier

from ser_plugins.audio.reading import Samples, stream_audio
from ser_plugins.audio.speech import MIN_SECONDS, TOGETHER, is_silent, join, naming
from ser_plugins.errors import InputError
from ser_plugins.evaluation.figures import COLOURS, EMOTIONS, styled
from ser_plugins.inference.batches import NOT_FINITE, choose_labels, classify, embed_speech
from ser_plugins.inference.files import readable

logger = logging.getLogger(__name__)
NO_SPEECH = "silence"
WINDOW, HOP = 3.0, 1.0  # seconds
GREY = "#e8e8e8"


class Window(NamedTuple):
    """A piece of a recording: where it is, in seconds, its samples [T] and their rate."""

    start: float
    end: float
    samples: Samples
    rate: int


def check_windows(window: float, hop: float) -> None:
    """Stop where windows [seconds] are too short or too long, or too near each other or too far."""
    if not MIN_SECONDS <= window <= 600 or not 0.01 <= hop <= 600:
        raise InputError(f"window of {window} s, hop of {hop} s: give 0.1 to 600 s and 0.01 to 600 s")


def slide(path: str | os.PathLike[str], window: float, hop: float) -> Iterator[Window]:
    """Slide over a recording, read block by block and mixed to one channel.

    The last window is as short as what is left, and is left out below 0.1 s.
    """
    held = np.empty(0, np.float32)
    offset = index = covered = rate = 0  # of what is held, in samples of the recording
    stream = stream_audio(path)
    for block, rate in stream:
        held = np.concatenate([held, block.mean(1)])
        size = max(round(window * rate), math.ceil(MIN_SECONDS * rate))  # 0.1 s may be half a sample more
        while (start := round(index * hop * rate)) + size <= offset + len(held):
            yield _cut(held, offset, start, start + size, rate)
            covered = start + size
            index += 1
        gone = min(max(start - offset, 0), len(held))
        held, offset = held[gone:], offset + gone
    if stream.warning:
        logger.warning("%s: %s", readable(os.fspath(path)), stream.warning)
    end = offset + len(held)
    if not rate or (not index and end < MIN_SECONDS * rate):
        raise InputError(f"{path}: {end / max(rate, 1):.3f} s of audio is too short; give {MIN_SECONDS} s or more")
    start = round(index * hop * rate)
    if covered < end and end - start >= MIN_SECONDS * rate:
        yield _cut(held, offset, start, end, rate)


def _cut(held: Samples, offset: int, start: int, end: int, rate: int) -> Window:
    return Window(start / rate, end / rate, held[start - offset : end - offset].copy(), rate)


def describe_recording(
    model: EncoderClassifier,
    path: str | os.PathLike[str],
    window: float = WINDOW,
    hop: float = HOP,
    labels: Sequence[str] | None = None,
    done: int = 0,
) -> Iterator[pd.DataFrame]:
    """Yield the rows of `timeline`, some windows at a time, after the first ``done`` of these pieces."""
    check_windows(window, hop)
    chosen, classes = choose_labels(model, labels)
    stream = islice(slide(path, window, hop), done * TOGETHER, None)
    while pieces := list(islice(stream, TOGETHER)):
        speech = find_speech(model, path, pieces)
        frame = pd.DataFrame(
            {"path": readable(os.fspath(path)), "start": [p.start for p in pieces], "end": [p.end for p in pieces]}
        )
        frame["emotion"] = NO_SPEECH
        frame[chosen] = np.nan
        if speech:
            found = classify(model, embed_speech(model, list(speech.values())), classes)
            if not found.isfinite().all():
                raise InputError(f"{path}: {NOT_FINITE}")
            rows = list(speech)
            frame.loc[rows, chosen] = found.numpy()
            frame.loc[rows, "emotion"] = [chosen[i] for i in found.argmax(1).tolist()]
        yield frame


def find_speech(
    model: EncoderClassifier, path: str | os.PathLike[str], pieces: Sequence[Window]
) -> dict[int, torch.Tensor]:
    """Cut the silence out of each window, as out of a file of its own; windows without speech are left out."""
    normalizer = model.hparams.audio_normalizer
    with naming(path):
        signals = [normalizer.convert(torch.from_numpy(piece.samples), piece.rate) for piece in pieces]
    found = zip(signals, pieces, normalizer.find_speech(signals), strict=True)
    return {
        row: join(signal, segments)
        for row, (signal, piece, segments) in enumerate(found)
        if segments and not is_silent(piece.samples)
    }


def timeline(
    model: EncoderClassifier,
    path: str | os.PathLike[str],
    window: float = WINDOW,
    hop: float = HOP,
    labels: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Tell the emotion over time of a recording of any length.

    Each window is told as a file of its own would be: resampled, silence cut out, embedded, classified.

    Parameters
    ----------
    model : speechbrain.inference.classifiers.EncoderClassifier
        As `ser_plugins.load` returns it.
    path : str or os.PathLike
        Recording, of any rate and channels.
    window, hop : float
        Seconds of a window, and from one to the next.
    labels : sequence of str, optional
        Emotions to choose among, as if there were no others; all that the model knows where not given.

    Returns
    -------
    pandas.DataFrame
        One row a window: ``path``, ``start`` and ``end`` in seconds, ``emotion``, and a column of probabilities a
        label. Where no speech is heard, the emotion is "silence" and the probabilities are NaN.

    Raises
    ------
    InputError
        If the recording cannot be read, a label is unknown, or the window cannot be used.

    Example
    -------
    >>> import ser_plugins
    >>> model = ser_plugins.load("results/S5/demo/1/fold1/model")  # doctest: +SKIP
    >>> frame = timeline(model, "talk.wav")  # doctest: +SKIP
    >>> timeline_figure(frame, "talk.png")  # doctest: +SKIP
    """
    return pd.concat(describe_recording(model, path, window, hop, labels), ignore_index=True)


def timeline_figure(frame: pd.DataFrame, path: str | os.PathLike[str], title: str | None = None) -> None:
    """Draw emotion over time: probabilities as stacked areas, grey where there is silence.

    Each window stands at its middle, as wide as it is far from the next.

    Parameters
    ----------
    frame : pandas.DataFrame
        As `timeline` returns it; columns of numbers other than ``start`` and ``end`` are labels.
    path : str or os.PathLike
        PNG file to write; an SVG stands beside it.
    title : str, optional
        Title of the figure; the name of the recording where not given.

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
    # More would have no colour of their own: those of most weight are drawn.
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
    """Both edges of each window's plateau, [2 N], and the heights there, [labels, 2 N]."""
    middle = ((frame["start"] + frame["end"]) / 2).to_numpy(float)
    between = (middle[1:] + middle[:-1]) / 2
    bounds = np.concatenate([frame["start"].iloc[:1], between, frame["end"].iloc[-1:]])
    edges = np.stack([bounds[:-1], bounds[1:]], axis=1).ravel()
    return edges, np.repeat(numbers.to_numpy(float).T, 2, axis=1)
