"""Emotion over time: predictions for the windows of a recording of any length."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ser_plugins.audio.speaker import SpeakerStatistics
from ser_plugins.audio.speech import TOGETHER
from ser_plugins.errors import InputError
from ser_plugins.files import readable
from ser_plugins.inference.batches import NOT_FINITE, classify, embed_speech, select_labels
from ser_plugins.inference.windows import Window, check_windows, find_speech, slide

if TYPE_CHECKING:
    from speechbrain.inference.classifiers import EncoderClassifier

NO_SPEECH = "silence"
WINDOW, HOP = 3.0, 1.0  # seconds


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
        yield predict_windows(model, path, windows, selected, classes, speaker)


def predict_windows(
    model: EncoderClassifier,
    path: str | os.PathLike[str],
    windows: Sequence[Window],
    selected: Sequence[str],
    classes: Sequence[int],
    speaker: SpeakerStatistics | None = None,
) -> pd.DataFrame:
    """Predict some windows of a recording: the rows of `timeline`."""
    speech = find_speech(model, path, windows)
    frame = pd.DataFrame(
        {"path": readable(os.fspath(path)), "start": [w.start for w in windows], "end": [w.end for w in windows]}
    )
    frame["emotion"] = NO_SPEECH
    frame[list(selected)] = np.nan
    if speech:
        probabilities = classify(model, embed_speech(model, list(speech.values()), speaker=speaker), classes)
        rows = list(speech)
        for row, known in zip(rows, probabilities.isfinite().all(1), strict=True):
            if not known:
                raise InputError(f"{path}, window at {windows[row].start:.2f} s: {NOT_FINITE}")
        frame.loc[rows, list(selected)] = probabilities.numpy()
        frame.loc[rows, "emotion"] = [selected[i] for i in probabilities.argmax(1).tolist()]
    return frame


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
