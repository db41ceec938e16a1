"""Emotion over time: predictions for the windows of a recording of any length."""

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
from ser_plugins.audio.speaker import SpeakerStatistics
from ser_plugins.audio.speech import MIN_SECONDS, TOGETHER, is_silent, join, naming
from ser_plugins.errors import InputError
from ser_plugins.evaluation.figures import COLOURS, styled
from ser_plugins.inference.batches import NOT_FINITE, classify, embed_speech, select_labels
from ser_plugins.inference.files import readable
from ser_plugins.metric.wheel import EMOTIONS

logger = logging.getLogger(__name__)
NO_SPEECH = "silence"
WINDOW, HOP = 3.0, 1.0  # seconds
GREY = "#e8e8e8"


class Window(NamedTuple):
    """A part of a recording: start and end in seconds, its samples [T] of one channel, and their sample rate."""

    start: float
    end: float
    samples: Samples
    rate: int


def check_windows(window: float, hop: float) -> None:
    """Raise an `InputError` unless the length of a window and the step to the next, in seconds, can be used."""
    if not MIN_SECONDS <= window <= 600 or not 0.01 <= hop <= 600:
        raise InputError(f"window of {window} s, hop of {hop} s: give a window of 0.1 to 600 s, a hop of 0.01 to 600 s")


def slide(path: str | os.PathLike[str], window: float, hop: float) -> Iterator[Window]:
    """Yield the windows of a recording, which is read block by block and downmixed.

    The last window ends with the recording; if it is shorter than 0.1 s, it is dropped.
    """
    buffer = np.empty(0, np.float32)
    offset = index = covered = rate = 0  # offset: sample of the recording at which the buffer starts
    stream = stream_audio(path)
    for block, rate in stream:
        buffer = np.concatenate([buffer, block.mean(1)])
        size = max(round(window * rate), math.ceil(MIN_SECONDS * rate))  # 0.1 s may be half a sample more
        while (start := round(index * hop * rate)) + size <= offset + len(buffer):
            yield _cut(buffer, offset, start, start + size, rate)
            covered = start + size
            index += 1
        passed = min(max(start - offset, 0), len(buffer))
        buffer, offset = buffer[passed:], offset + passed
    if stream.warning:
        logger.warning("%s: %s", readable(os.fspath(path)), stream.warning)
    end = offset + len(buffer)
    if not rate or (not index and end < MIN_SECONDS * rate):
        raise InputError(f"{path}: {end / max(rate, 1):.3f} s of audio is too short; give {MIN_SECONDS} s or more")
    start = round(index * hop * rate)
    if covered < end and end - start >= MIN_SECONDS * rate:
        yield _cut(buffer, offset, start, end, rate)


def _cut(buffer: Samples, offset: int, start: int, end: int, rate: int) -> Window:
    return Window(start / rate, end / rate, buffer[start - offset : end - offset].copy(), rate)


def timeline_chunks(
    model: EncoderClassifier,
    path: str | os.PathLike[str],
    window: float = WINDOW,
    hop: float = HOP,
    labels: Sequence[str] | None = None,
    speaker: SpeakerStatistics | None = None,
    skip: int = 0,
) -> Iterator[pd.DataFrame]:
    """Yield the rows of `timeline` in chunks of some windows; the first ``skip`` chunks are not computed."""
    check_windows(window, hop)
    selected, classes = select_labels(model, labels)
    stream = islice(slide(path, window, hop), skip * TOGETHER, None)
    while windows := list(islice(stream, TOGETHER)):
        speech = find_speech(model, path, windows)
        frame = pd.DataFrame(
            {"path": readable(os.fspath(path)), "start": [w.start for w in windows], "end": [w.end for w in windows]}
        )
        frame["emotion"] = NO_SPEECH
        frame[selected] = np.nan
        if speech:
            probabilities = classify(model, embed_speech(model, list(speech.values()), speaker=speaker), classes)
            rows = list(speech)
            for row, known in zip(rows, probabilities.isfinite().all(1), strict=True):
                if not known:
                    raise InputError(f"{path}, window at {windows[row].start:.2f} s: {NOT_FINITE}")
            frame.loc[rows, selected] = probabilities.numpy()
            frame.loc[rows, "emotion"] = [selected[i] for i in probabilities.argmax(1).tolist()]
        yield frame


def find_speech(
    model: EncoderClassifier, path: str | os.PathLike[str], windows: Sequence[Window]
) -> dict[int, torch.Tensor]:
    """Remove the silence of each window as of a file of its own; return samples [T] of the windows with speech."""
    normalizer = model.hparams.audio_normalizer
    with naming(path):
        signals = [normalizer.convert(torch.from_numpy(window.samples), window.rate) for window in windows]
    found = zip(signals, windows, normalizer.find_speech(signals), strict=True)
    return {
        row: join(signal, segments)
        for row, (signal, window, segments) in enumerate(found)
        if segments and not is_silent(window.samples)
    }


def timeline(
    model: EncoderClassifier,
    path: str | os.PathLike[str],
    window: float = WINDOW,
    hop: float = HOP,
    labels: Sequence[str] | None = None,
    speaker: SpeakerStatistics | None = None,
) -> pd.DataFrame:
    """Predict the emotion over time in a recording of any length.

    A window is predicted as a file of its own would be: resampled, its silence removed, embedded, classified.

    Parameters
    ----------
    model : speechbrain.inference.classifiers.EncoderClassifier
        As `ser_plugins.load` returns it.
    path : str or os.PathLike
        Recording of any sample rate and number of channels.
    window, hop : float
        Length of a window, and step from one window to the next, in seconds.
    labels : sequence of str, optional
        Emotions to choose from, as if there were no others; by default all labels of the model.
    speaker : SpeakerStatistics, optional
        Statistics of the speaker, as `speaker_statistics` returns them, for a model of S7 or S8.

    Returns
    -------
    pandas.DataFrame
        One row per window: ``path``, ``start`` and ``end`` in seconds, ``emotion``, and the probability of each label.
        A window without speech has the emotion "silence" and NaN as probabilities.

    Raises
    ------
    InputError
        If the recording cannot be read, a label is unknown, or the window or the hop cannot be used.

    Example
    -------
    >>> import ser_plugins
    >>> folder = getfixture("tiny_s8")  # a model folder, and a folder of two recordings
    >>> model = ser_plugins.load(folder / "model")
    >>> frame = timeline(model, folder / "clips" / "a.wav", window=0.5, hop=0.25)
    >>> frame["end"].tolist()
    [0.5, 0.75, 1.0]
    """
    return pd.concat(timeline_chunks(model, path, window, hop, labels, speaker), ignore_index=True)


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
