"""Tables of files: what each expresses, or its embedding."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from speechbrain.inference.classifiers import EncoderClassifier
from torch import Tensor
from tqdm import tqdm

from ser_plugins.audio.speech import TOGETHER
from ser_plugins.corpora.corpus import RESERVED
from ser_plugins.errors import InputError
from ser_plugins.inference.batches import (
    BATCH_SECONDS,
    NOT_FINITE,
    choose_labels,
    classify,
    embed_speech,
    pack,
    windows,
)
from ser_plugins.inference.files import Clip, find_files, header_seconds, read_groups, readable
from ser_plugins.metric.wheel import WHEEL

logger = logging.getLogger(__name__)
Columns = dict[str, list[Any]]
Rows = Callable[[Tensor], Columns]
GROUP_SECONDS = 600.0  # of files that are read together


def embedding_rows() -> tuple[pa.Schema, Rows]:
    """Return the columns of a table of embeddings, and the function that makes them."""
    return _schema({"embedding": pa.list_(pa.float32())}), lambda embeddings: {"embedding": list(embeddings.numpy())}


def prediction_rows(model: EncoderClassifier, labels: Sequence[str] | None) -> tuple[pa.Schema, Rows]:
    """Return the columns of a table of predictions, and the function that makes them of embeddings [N, E]."""
    chosen, classes = choose_labels(model, labels)
    if taken := RESERVED & set(chosen):
        raise InputError(f"the label {min(taken)!r} is named as a column of the table; choose others by labels")
    if not set(chosen) & set(WHEEL):
        logger.warning("%s … are no emotions that are known; for an encoder of speakers, take embed", chosen[0])

    def rows(embeddings: Tensor) -> Columns:
        probabilities = classify(model, embeddings, classes)
        best, index = probabilities.max(1)
        named = {"emotion": [chosen[i] for i in index.tolist()], "probability": best.tolist()}
        return named | dict(zip(chosen, probabilities.T.tolist(), strict=True))

    return _schema({"emotion": pa.string(), "probability": pa.float64(), **dict.fromkeys(chosen, pa.float64())}), rows


def _schema(columns: dict[str, pa.DataType]) -> pa.Schema:
    of_the_file = {"path": pa.string(), "seconds": pa.float64()}
    return pa.schema({**of_the_file, **columns, "warning": pa.string(), "error": pa.string()})


def describe_files(
    model: EncoderClassifier,
    paths: Sequence[str],
    schema: pa.Schema,
    rows: Rows,
    jobs: int = 0,
    batch_seconds: float = BATCH_SECONDS,
    done: int = 0,
) -> Iterator[pa.RecordBatch]:
    """Describe files, piece by piece: record batches in the order of the files.

    Which files are read and computed together depends on the list of them alone, so that the pieces after the first
    ``done`` are to the bit those of a run that made all of them.

    Parameters
    ----------
    model : speechbrain.inference.classifiers.EncoderClassifier
        As `ser_plugins.load` returns it.
    paths : sequence of str
        Sound files.
    schema : pyarrow.Schema
        Columns: ``path``, ``seconds``, those of ``rows``, ``warning``, ``error``.
    rows : callable
        Makes columns of embeddings [N, E].
    jobs : int
        Processes that read files while the network computes; 0 reads them in this one.
    batch_seconds : float
        Seconds of audio in a batch at most, padding included.
    done : int
        Pieces to leave out.
    """
    seconds = header_seconds(paths)
    pieces = list(windows(seconds))
    groups = [
        [[piece[row] for row in group] for group in pack([seconds[i] for i in piece], GROUP_SECONDS, TOGETHER)]
        for piece in pieces[done:]
    ]
    named = [[paths[row] for row in group] for piece in groups for group in piece]
    read = read_groups(named, model.hparams.audio_normalizer, jobs)
    initial = pieces[done].start if done < len(pieces) else len(paths)
    with tqdm(total=len(paths), initial=initial, unit="file") as progress:
        for piece, its_groups in zip(pieces[done:], groups, strict=True):
            clips: dict[int, Clip] = {}
            for group in its_groups:
                clips.update(zip(group, next(read), strict=True))
            speech = {row: torch.from_numpy(c.speech) for row, c in sorted(clips.items()) if c.speech is not None}
            columns = rows(embed_speech(model, list(speech.values()), batch_seconds)) if speech else {}
            for row in _drop_infinite(columns, list(speech)):
                clips[row] = clips[row]._replace(error=f"{paths[piece[row]]}: {NOT_FINITE}")
            yield _record_batch(schema, [paths[row] for row in piece], [clips[row] for row in piece], columns)
            progress.update(len(piece))


def _drop_infinite(columns: Columns, rows: Sequence[int]) -> list[int]:
    """Take results that are NaN or infinite out of the columns; return their rows."""
    wrong = []
    for i, row in enumerate(rows):
        numbers = [values[i] for values in columns.values() if not isinstance(values[i], str)]
        if not all(np.isfinite(number).all() for number in numbers):
            wrong.append(row)
            for values in columns.values():
                values[i] = None
    return wrong


def _record_batch(schema: pa.Schema, paths: Sequence[str], clips: Sequence[Clip], columns: Columns) -> pa.RecordBatch:
    given = [row for row, clip in enumerate(clips) if clip.speech is not None]
    full: Columns = {
        "path": [readable(path) for path in paths],
        "seconds": [clip.seconds if clip.error is None or clip.seconds else None for clip in clips],
        "warning": [clip.warning for clip in clips],
        "error": [clip.error and readable(clip.error) for clip in clips],
    }
    for name in set(schema.names) - set(full):
        values: list[Any] = [None] * len(clips)
        for row, value in zip(given, columns.get(name, ()), strict=bool(given)):
            values[row] = value
        full[name] = values
    return pa.record_batch([pa.array(full[field.name], field.type) for field in schema], schema=schema)


def predict(
    model: EncoderClassifier,
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    labels: Sequence[str] | None = None,
    jobs: int = 0,
    batch_seconds: float = BATCH_SECONDS,
) -> pd.DataFrame:
    """Tell the emotion of sound files.

    Parameters
    ----------
    model : speechbrain.inference.classifiers.EncoderClassifier
        As `ser_plugins.load` returns it.
    paths : path or iterable of paths
        Files, folders, patterns; see `find_files`.
    labels : sequence of str, optional
        Emotions to choose among, as if there were no others; all that the model knows where not given.
    jobs : int
        Processes that read files while the network computes; 0 reads them in this one.
    batch_seconds : float
        Seconds of audio in a batch at most, padding included.

    Returns
    -------
    pandas.DataFrame
        One row a file: ``path``, ``seconds``, ``emotion``, its ``probability``, one column of probabilities a label,
        ``warning``: how much of a file is missing, and ``error``: why a file has no prediction.

    Raises
    ------
    InputError
        If a label is unknown, or a folder or pattern has no sound file.

    Example
    -------
    >>> import ser_plugins
    >>> model = ser_plugins.load("results/S5/demo/1/fold1/model")  # doctest: +SKIP
    >>> predict(model, ["clips", "more/one.wav"], labels=["happy", "sad"])  # doctest: +SKIP
    """
    return _frame(model, paths, *prediction_rows(model, labels), jobs, batch_seconds)


def embed(
    model: EncoderClassifier,
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    jobs: int = 0,
    batch_seconds: float = BATCH_SECONDS,
) -> pd.DataFrame:
    """Embed sound files: ``embedding`` (float32 [E]) beside the columns of `predict` for a file; arguments as there.

    Example
    -------
    >>> import ser_plugins
    >>> model = ser_plugins.load("results/S5/demo/1/fold1/model")  # doctest: +SKIP
    >>> np.stack(embed(model, "clips")["embedding"].dropna()).shape  # doctest: +SKIP
    (20, 512)
    """
    return _frame(model, paths, *embedding_rows(), jobs, batch_seconds)


def _frame(
    model: EncoderClassifier, paths: Any, schema: pa.Schema, rows: Rows, jobs: int, batch_seconds: float
) -> pd.DataFrame:
    files = find_files([paths] if isinstance(paths, str | os.PathLike) else paths)
    batches = describe_files(model, files, schema, rows, jobs, batch_seconds)
    table: pd.DataFrame = pa.Table.from_batches(batches, schema).to_pandas()
    return table
