"""Predictions and embeddings of audio files, as tables."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from tqdm import tqdm

from ser_plugins.audio.speaker import SpeakerStatistics
from ser_plugins.audio.speech import TOGETHER
from ser_plugins.errors import InputError
from ser_plugins.files import readable
from ser_plugins.inference.batches import (
    BATCH_SECONDS,
    NOT_FINITE,
    classify,
    embed_speech,
    make_batches,
    make_chunks,
    select_labels,
)
from ser_plugins.inference.files import Clip, find_files, header_seconds, read_groups
from ser_plugins.metric.wheel import WHEEL

if TYPE_CHECKING:
    import pandas as pd
    from speechbrain.inference.classifiers import EncoderClassifier

logger = logging.getLogger(__name__)
Paths: TypeAlias = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
Columns = dict[str, list[Any]]
UNKNOWN = "unknown"
GROUP_SECONDS = 600.0  # of files that are read together


class Output(NamedTuple):
    """What a table says of a file: the types of its columns, and the function that makes columns of embeddings [N, E].

    The types are those of `ser_plugins.inference.table.TYPES`. The function returns the columns, and a boolean mask [N]
    of the rows whose values are finite.
    """

    types: dict[str, str]
    columns: Callable[[Tensor], tuple[Columns, Tensor]]


def embedding_output() -> Output:
    """Return the output of `embed`: a column ``embedding``."""
    return Output(
        _types({"embedding": "vector"}),
        lambda embeddings: ({"embedding": list(embeddings.numpy())}, embeddings.isfinite().all(1)),
    )


def prediction_output(model: EncoderClassifier, labels: Sequence[str] | None, unknown: float = 0.0) -> Output:
    """Return the output of `predict`: ``emotion``, ``probability``, and the probability of each label."""
    if not 0 <= unknown <= 1:
        raise InputError(f"unknown is {unknown}; give a probability from 0 to 1")
    selected, classes = select_labels(model, labels)
    types = {"emotion": "text", "probability": "number"}
    if reserved := set(_types(types)) & set(selected):
        raise InputError(f"the label {min(reserved)!r} is the name of a column of the table; select other labels")
    if not set(selected) & set(WHEEL):
        logger.warning("the labels %s … are not known emotions; use embed for a speaker encoder", selected[0])

    def columns(embeddings: Tensor) -> tuple[Columns, Tensor]:
        finite = embeddings.isfinite().all(1)
        probabilities = classify(model, embeddings.where(finite[:, None], 0), classes)
        emotions, best = decide(selected, probabilities, unknown)
        named: Columns = {"emotion": emotions, "probability": best}
        values = named | dict(zip(selected, probabilities.T.tolist(), strict=True))
        return values, finite & probabilities.isfinite().all(1)

    return Output(_types({**types, **dict.fromkeys(selected, "number")}), columns)


def decide(labels: Sequence[str], probabilities: Tensor, unknown: float = 0.0) -> tuple[list[str], list[float]]:
    """Choose the most probable label of each utterance, or "unknown" where its probability is too low.

    Parameters
    ----------
    labels : sequence of str
        Labels in the order of the classes.
    probabilities : torch.Tensor
        [N, C].
    unknown : float
        Below this probability the answer is "unknown"; at 0 it is always a label.

    Returns
    -------
    list of str
        The answers.
    list of float
        The probability of the most probable label of each utterance.

    Example
    -------
    >>> import torch
    >>> decide(["happy", "sad"], torch.tensor([[0.25, 0.75], [0.5, 0.5]]), unknown=0.6)
    (['sad', 'unknown'], [0.75, 0.5])
    """
    best, index = probabilities.max(1)
    pairs = zip(index.tolist(), best.tolist(), strict=True)
    return [labels[i] if probability >= unknown else UNKNOWN for i, probability in pairs], best.tolist()


def _types(columns: dict[str, str]) -> dict[str, str]:
    return {"path": "text", "seconds": "number", **columns, "warning": "text", "error": "text"}


def table_chunks(
    model: EncoderClassifier,
    paths: Sequence[str],
    output: Output,
    jobs: int = 0,
    batch_seconds: float = BATCH_SECONDS,
    speaker: SpeakerStatistics | None = None,
    skip: int = 0,
    progress: bool = True,
    apart: bool = False,
) -> Iterator[Columns]:
    """Compute the table of some files chunk by chunk.

    The list of files alone decides which are read and computed together. The chunks of a resumed run therefore equal
    those of an uninterrupted one to the bit.

    Parameters
    ----------
    model : speechbrain.inference.classifiers.EncoderClassifier
        As `ser_plugins.load` returns it.
    paths : sequence of str
        Audio files.
    output : Output
        The columns to compute.
    jobs : int
        Processes that read files while the network computes; 0 reads them in this process.
    batch_seconds : float
        Largest length of a batch in seconds, padding included.
    speaker : SpeakerStatistics, optional
        Statistics of the speaker of all files.
    skip : int
        Number of chunks, from the first, that are not computed.
    progress : bool
        Whether to show a progress bar.
    apart : bool
        Read in another process in any case: a file that kills it is a row with an error.

    Yields
    ------
    dict
        The columns of a chunk, as lists, with the rows in the order of its files.
    """
    seconds = header_seconds(paths)
    chunks = list(make_chunks(seconds))
    groups = [
        [[chunk[row] for row in group] for group in make_batches([seconds[i] for i in chunk], GROUP_SECONDS, TOGETHER)]
        for chunk in chunks[skip:]
    ]
    named = [[paths[row] for row in group] for chunk in groups for group in chunk]
    clip_groups = read_groups(named, model.hparams.audio_normalizer, jobs, apart)
    initial = chunks[skip].start if skip < len(chunks) else len(paths)
    with tqdm(total=len(paths), initial=initial, unit="file", disable=not progress) as shown:
        for chunk, its_groups in zip(chunks[skip:], groups, strict=True):
            clips: dict[int, Clip] = {}
            for group in its_groups:
                clips.update(zip(group, next(clip_groups), strict=True))
            ordered = [clips[row] for row in chunk]
            speech = [torch.from_numpy(clip.speech) for clip in ordered if clip.speech is not None]
            columns = output.columns(embed_speech(model, speech, batch_seconds, speaker)) if speech else ({}, ())
            yield _rows(output.types, [paths[row] for row in chunk], ordered, *columns)
            shown.update(len(chunk))


def _rows(
    types: Iterable[str], paths: Sequence[str], clips: Sequence[Clip], columns: Columns, finite: Iterable[bool]
) -> Columns:
    """Join what was read of the files and what the model computed; a row has values or an error."""
    with_speech = [row for row, clip in enumerate(clips) if clip.speech is not None]
    errors = [clip.error and readable(clip.error) for clip in clips]
    for row, known in zip(with_speech, finite, strict=True):
        errors[row] = None if known else f"{readable(paths[row])}: {NOT_FINITE}"
    full: Columns = {
        "path": [readable(path) for path in paths],
        "seconds": [clip.seconds if clip.error is None or clip.seconds else None for clip in clips],
        "warning": [clip.warning for clip in clips],
        "error": errors,
    }
    for name in set(types) - set(full):
        full[name] = [None] * len(clips)
        for row, value in zip(with_speech, columns.get(name, ()), strict=bool(with_speech)):
            full[name][row] = value if errors[row] is None else None
    return {name: full[name] for name in types}


def predict(
    model: EncoderClassifier,
    paths: Paths,
    labels: Sequence[str] | None = None,
    jobs: int = 0,
    batch_seconds: float = BATCH_SECONDS,
    speaker: SpeakerStatistics | None = None,
    unknown: float = 0.0,
) -> pd.DataFrame:
    """Predict the emotion of audio files.

    Parameters
    ----------
    model : speechbrain.inference.classifiers.EncoderClassifier
        As `ser_plugins.load` returns it.
    paths : path or iterable of paths
        Files, folders, patterns; see `ser_plugins.inference.files.find_files`.
    labels : sequence of str, optional
        Emotions to choose from, as if there were no others; by default all labels of the model.
    jobs : int
        Processes that read files while the network computes; 0 reads them in this process.
    batch_seconds : float
        Largest length of a batch in seconds, padding included.
    speaker : SpeakerStatistics, optional
        Statistics of the speaker of all files, as `speaker_statistics` returns them, for a model of S7 or S8.
    unknown : float
        Below this probability the emotion is "unknown".

    Returns
    -------
    pandas.DataFrame
        One row per file: ``path``, ``seconds``, ``emotion``, its ``probability``, the probability of each label,
        ``warning``, how much of a file is missing, and ``error``, why a file has no prediction.

    Raises
    ------
    InputError
        If a label or ``unknown`` cannot be used, or a folder or pattern has no audio file.

    Example
    -------
    >>> import ser_plugins
    >>> folder = getfixture("tiny_s8")  # a model folder, and a folder of two recordings
    >>> model = ser_plugins.load(folder / "model")
    >>> table = predict(model, folder / "clips", labels=["happy", "sad"])
    >>> list(table.columns), len(table)
    (['path', 'seconds', 'emotion', 'probability', 'happy', 'sad', 'warning', 'error'], 2)
    """
    return _table(model, paths, prediction_output(model, labels, unknown), jobs, batch_seconds, speaker)


def embed(
    model: EncoderClassifier,
    paths: Paths,
    jobs: int = 0,
    batch_seconds: float = BATCH_SECONDS,
    speaker: SpeakerStatistics | None = None,
) -> pd.DataFrame:
    """Embed audio files.

    Parameters
    ----------
    model, paths, jobs, batch_seconds, speaker
        As in `predict`.

    Returns
    -------
    pandas.DataFrame
        One row per file: ``path``, ``seconds``, ``embedding`` (float32 [E]), ``warning`` and ``error``.

    Raises
    ------
    InputError
        If a folder or pattern has no audio file.

    Example
    -------
    >>> import numpy as np
    >>> import ser_plugins
    >>> folder = getfixture("tiny_s8")
    >>> model = ser_plugins.load(folder / "model")
    >>> np.stack(embed(model, folder / "clips")["embedding"].dropna()).shape
    (2, 12)
    """
    return _table(model, paths, embedding_output(), jobs, batch_seconds, speaker)


def _table(
    model: EncoderClassifier,
    paths: Paths,
    output: Output,
    jobs: int,
    batch_seconds: float,
    speaker: SpeakerStatistics | None,
) -> pd.DataFrame:
    files = find_files([paths] if isinstance(paths, str | os.PathLike) else paths)
    from ser_plugins.inference.table import to_pandas  # noqa: PLC0415 — pandas takes a while

    return to_pandas(table_chunks(model, files, output, jobs, batch_seconds, speaker), output.types)
