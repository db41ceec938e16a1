"""Timelines of several recordings: one table of all windows, one figure per recording."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from ser_plugins.commands.printing import print_table
from ser_plugins.commands.tables import prepare, split_labels, write_table
from ser_plugins.errors import InputError
from ser_plugins.files import readable
from ser_plugins.inference.batches import select_labels
from ser_plugins.inference.drawing import timeline_figure
from ser_plugins.inference.files import header_seconds
from ser_plugins.inference.table import PartialTable
from ser_plugins.inference.timelines import HOP, WINDOW, timeline_chunks
from ser_plugins.inference.windows import check_windows
from ser_plugins.memory import return_memory


def run_recordings(given: argparse.Namespace) -> None:
    """Print or write the windows of each recording; with a table, draw a figure of each recording."""
    return_memory()
    window, hop = (default if one is None else one for one, default in ((given.window, WINDOW), (given.hop, HOP)))
    check_windows(window, hop)
    job = prepare(given)
    labels, _ = select_labels(job.model, split_labels(given.labels))
    columns = {"path": pa.string(), "start": pa.float64(), "end": pa.float64(), "emotion": pa.string()}
    schema = pa.schema({**columns, **dict.fromkeys(labels, pa.float64()), "error": pa.string()})
    figures = figure_paths(given.output, job.files) if given.output else []

    def chunks(part: PartialTable | None = None) -> Iterator[pa.RecordBatch]:
        done = _by_recording(part) if part else {}
        for number, path in enumerate(tqdm(job.files, unit="recording")):
            its_chunks = done.pop(readable(path), [])
            if not _failed(its_chunks):  # a recording that failed has no further windows
                windows = partial(timeline_chunks, job.model, path, window, hop, labels, job.speaker, len(its_chunks))
                for chunk in _recording_chunks(path, windows, schema):
                    its_chunks.append(chunk)
                    yield chunk
            if part:
                _draw(its_chunks, figures[number])

    if given.output is None:
        print_table(pa.Table.from_batches(chunks(), schema).to_pydict(), len(job.files))
    else:
        write_table(given, job, schema, chunks, ["timeline", schema.names, window, hop])


def figure_paths(output: Path, files: list[str]) -> list[Path]:
    """Name a figure for each recording in the folder of the table, numbered where two recordings have the same name."""
    found: dict[str, None] = {}
    for path in files:
        name = f"{output.stem}-{Path(path).stem}"
        numbered = (name if count == 1 else f"{name}-{count}" for count in itertools.count(1))
        found[next(one for one in numbered if one not in found)] = None
    return [output.parent / f"{name}.png" for name in found]


def _by_recording(part: PartialTable) -> dict[str, list[pa.RecordBatch]]:
    """Group the finished chunks by recording."""
    found: dict[str, list[pa.RecordBatch]] = {}
    for chunk in part.read():
        found.setdefault(chunk["path"][0].as_py(), []).append(chunk)
    return found


def _failed(chunks: list[pa.RecordBatch]) -> bool:
    return bool(chunks) and chunks[-1]["error"][0].as_py() is not None


def _recording_chunks(
    path: str, windows: Callable[[], Iterator[pd.DataFrame]], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """Yield the windows of a recording under a progress bar, or one row with the error."""
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


def _draw(chunks: list[pa.RecordBatch], figure: Path) -> None:
    """Draw the timeline of a recording, unless it failed."""
    frame = pa.Table.from_batches(chunks).to_pandas().dropna(subset="start").drop(columns="error")
    if len(frame):
        timeline_figure(frame, figure)
