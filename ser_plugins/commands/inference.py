"""What the commands predict and embed do."""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from ser_plugins.corpora.text import decode
from ser_plugins.errors import InputError, disk_full_told
from ser_plugins.inference.batches import choose_labels
from ser_plugins.inference.files import find_files, header_seconds, readable
from ser_plugins.inference.table import Part, identity_of
from ser_plugins.inference.timeline import HOP, WINDOW, check_windows, describe_recording, timeline_figure
from ser_plugins.inference.utterances import describe_files, embedding_rows, prediction_rows
from ser_plugins.inference.voice import adapt_or_warn, told_voice
from ser_plugins.memory import keep_memory, return_memory
from ser_plugins.model_folder.loading import UtteranceClassifier, load

logger = logging.getLogger(__name__)


def predictions(given: argparse.Namespace) -> None:
    """Print or write what each file expresses."""
    keep_memory()
    model, files = _prepare(given)
    schema, rows = prediction_rows(model, _labels(given))

    def describe(part: Part | None = None) -> Iterator[pa.RecordBatch]:
        done = part.pieces if part else 0
        return describe_files(model, files, schema, rows, given.jobs, given.batch_seconds, done)

    if given.output is None:
        table = pa.Table.from_batches(describe(), schema).to_pandas()
        _print(table[["path", "seconds", "emotion", "probability", "warning", "error"]])
        _tell(len(files), table["error"].dropna().tolist())
    else:
        _write(given, model, files, schema, describe, "predict", schema.names, given.batch_seconds)


def embeddings(given: argparse.Namespace) -> None:
    """Write the embedding of each file."""
    keep_memory()
    model, files = _prepare(given)
    schema, rows = embedding_rows()

    def describe(part: Part) -> Iterator[pa.RecordBatch]:
        return describe_files(model, files, schema, rows, given.jobs, given.batch_seconds, part.pieces)

    _write(given, model, files, schema, describe, "embed", given.batch_seconds)


def timelines(given: argparse.Namespace, window: float = WINDOW, hop: float = HOP) -> None:
    """Print or write the windows of each recording; with a table goes a figure of each."""
    return_memory()
    check_windows(window, hop)
    model, files = _prepare(given)
    labels, _ = choose_labels(model, _labels(given))
    columns = {"path": pa.string(), "start": pa.float64(), "end": pa.float64(), "emotion": pa.string()}
    schema = pa.schema({**columns, **dict.fromkeys(labels, pa.float64()), "error": pa.string()})
    figures = _figure_paths(given.output, files) if given.output else []

    def describe(part: Part | None = None) -> Iterator[pa.RecordBatch]:
        before = _by_recording(part) if part else {}
        for number, path in enumerate(tqdm(files, unit="recording")):
            pieces = before.pop(readable(path), [])
            if not _failed(pieces):  # a recording that failed has no more
                windows = partial(describe_recording, model, path, window, hop, labels, len(pieces))
                for piece in _pieces(path, windows, schema):
                    pieces.append(piece)
                    yield piece
            if part:
                _draw(pieces, figures[number])

    if given.output is None:
        table = pa.Table.from_batches(describe(), schema).to_pandas()
        _print(table)
        _tell(len(files), table["error"].dropna().tolist())
    else:
        _write(given, model, files, schema, describe, "timeline", schema.names, window, hop)


def _by_recording(part: Part) -> dict[str, list[pa.RecordBatch]]:
    """Read the pieces that are done, by the recording that they are of."""
    found: dict[str, list[pa.RecordBatch]] = {}
    for piece in part.rows():
        found.setdefault(piece["path"][0].as_py(), []).append(piece)
    return found


def _failed(pieces: list[pa.RecordBatch]) -> bool:
    return bool(pieces) and pieces[-1]["error"][0].as_py() is not None


def _pieces(path: str, windows: Callable[[], Iterator[pd.DataFrame]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the windows of a recording, while telling how far it is, or why it has none."""
    (total,) = header_seconds([path])
    with tqdm(total=round(total), desc=Path(path).name, unit="s", leave=False) as progress:
        try:
            for frame in windows():
                yield _record_batch(frame.assign(error=None), schema)
                progress.update(round(frame["end"].iloc[-1]) - progress.n)
        except InputError as error:
            row = pd.DataFrame({"path": [readable(path)], "error": [readable(str(error))]})
            yield _record_batch(row.reindex(columns=schema.names), schema)


def _record_batch(frame: pd.DataFrame, schema: pa.Schema) -> pa.RecordBatch:
    (batch,) = pa.Table.from_pandas(frame, schema, preserve_index=False).combine_chunks().to_batches()
    return batch


def _draw(pieces: list[pa.RecordBatch], figure: Path) -> None:
    """Draw the timeline of a recording, if it has any."""
    frame = pa.Table.from_batches(pieces).to_pandas().dropna(subset="start").drop(columns="error")
    if len(frame):
        timeline_figure(frame, figure)


def _prepare(given: argparse.Namespace) -> tuple[UtteranceClassifier, list[str]]:
    if given.jobs < 0 or given.batch_seconds <= 0:
        raise InputError("give --batch_seconds above 0, and --jobs, 0 of which is this process alone")
    paths = [line for path in given.paths for line in (_listed_paths() if path == "-" else [path])]
    files = find_files(path for path in paths if path)
    if not files:
        raise InputError("no path is given; give files, folders or patterns")
    model = load(given.model, given.revision, given.device)
    adapt_or_warn(model, given.speaker)
    return model, files


def _listed_paths() -> list[str]:
    return decode(sys.stdin.buffer.read(), "standard input").splitlines()


def _labels(given: argparse.Namespace) -> list[str] | None:
    return None if given.labels is None else [label.strip() for label in given.labels.split(",")]


def _figure_paths(output: Path, files: list[str]) -> list[Path]:
    """One figure a recording beside the table, numbered where two recordings are named alike."""
    found: dict[str, None] = {}
    for path in files:
        name = f"{output.stem}-{Path(path).stem}"
        numbered = (name if count == 1 else f"{name}-{count}" for count in itertools.count(1))
        found[next(one for one in numbered if one not in found)] = None
    return [output.parent / f"{name}.png" for name in found]


def _write(
    given: argparse.Namespace,
    model: UtteranceClassifier,
    files: list[str],
    schema: pa.Schema,
    describe: Callable[[Part], Iterator[pa.RecordBatch]],
    *facts: Any,
) -> None:
    """Write a table piece by piece, after the pieces that are there."""
    normalizer = model.hparams.audio_normalizer.settings()
    settings = [model.checksum, model.device, normalizer, told_voice(model), *facts]
    with disk_full_told(given.output.parent):
        part = Part(given.output, schema, identity_of(settings, files))
        for piece in describe(part):
            part.append(piece)
        errors = [error for piece in part.rows() for error in piece.column("error").to_pylist() if error]
        part.finish()
    print(given.output)
    _tell(len(files), errors)


def _print(table: pd.DataFrame) -> None:
    empty = [column for column in ("warning", "error") if column in table and table[column].isna().all()]
    table = table.drop(columns=empty)
    print(table.to_string(index=False, na_rep="", float_format="{:.3f}".format))


def _tell(files: int, errors: list[str]) -> None:
    """Say how many files could not be used; it is an error where none could."""
    if len(errors) == files:
        raise InputError(f"none of {files} files could be used; the first: {errors[0]}")
    if errors:
        logger.warning("%d of %d files could not be used; the column error says why", len(errors), files)
