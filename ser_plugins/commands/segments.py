"""Segments of one emotion in recordings: one table of all, or a file of an annotation program."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import suppress

import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from ser_plugins.audio.reading import stream_audio
from ser_plugins.commands.printing import print_table, report_errors
from ser_plugins.commands.tables import Job, prepare, split_labels, write_table
from ser_plugins.errors import InputError
from ser_plugins.files import readable
from ser_plugins.inference.batches import select_labels
from ser_plugins.inference.segmentation import (
    FORMATS,
    MIN_SECONDS,
    check_format,
    check_lengths,
    segments,
    write_segments,
)
from ser_plugins.inference.table import PartialTable, schema_of
from ser_plugins.inference.timelines import HOP, WINDOW, timeline
from ser_plugins.inference.turns import conversation, read_turns
from ser_plugins.inference.windows import check_windows

TYPES = {
    "path": "text",
    "start": "number",
    "end": "number",
    "emotion": "text",
    "probability": "number",
    "error": "text",
}


def run_segments(given: argparse.Namespace) -> None:
    """Print or write the segments of each recording."""
    if given.turns and given.speaker:
        raise InputError("--turns has the speech of each speaker; leave --speaker out")
    window, hop = (default if one is None else one for one, default in ((given.window, WINDOW), (given.hop, HOP)))
    check_windows(window, hop)
    shortest = MIN_SECONDS if given.min_seconds is None else given.min_seconds
    check_lengths(shortest)
    turns = read_turns(given.turns) if given.turns else None
    job = prepare(given)
    labels, _ = select_labels(job.model, split_labels(given.labels))
    types = TYPES if turns is None else {"path": "text", "speaker": "text", **TYPES}

    def recordings(files: list[str]) -> Iterator[pd.DataFrame]:
        for path in tqdm(files, unit="recording"):
            yield _segments(job, path, turns, window, hop, labels, shortest).reindex(columns=list(types))

    if given.output is None:
        found = _joined(recordings(job.files))
        shown = found.astype(object).where(found.notna(), None)
        print_table({name: shown[name].tolist() for name in types}, len(job.files))
    elif given.output.suffix.lower() in FORMATS:
        check_format(given.output, job.files)
        found = _joined(recordings(job.files))
        seconds = seconds_of(job.files[0]) if given.output.suffix.lower() == ".textgrid" else None
        write_segments(found[found["error"].isna()], given.output, seconds)
        print(given.output)
        report_errors(len(job.files), found["error"].dropna().tolist())
    else:
        schema = schema_of(types)

        def chunks(part: PartialTable) -> Iterator[pa.RecordBatch]:
            return (_batch(frame, schema) for frame in recordings(job.files[part.chunks :]))

        heard = None if turns is None else turns.astype(str).to_numpy().tolist()
        write_table(given, job, schema, chunks, ["segments", schema.names, labels, window, hop, shortest, heard])


def seconds_of(path: str) -> float:
    """Decode a recording to measure its length, which the header of some formats does not contain; 0 if it fails."""
    with suppress(InputError):
        return sum(len(block) / rate for block, rate in stream_audio(path))
    return 0.0


def _joined(frames: Iterator[pd.DataFrame]) -> pd.DataFrame:
    first, *more = frames
    return pd.concat([first, *more], ignore_index=True) if more else first


def _segments(
    job: Job, path: str, turns: pd.DataFrame | None, window: float, hop: float, labels: list[str], shortest: float
) -> pd.DataFrame:
    """Return the segments of a recording, or one row with the error."""
    try:
        if turns is None:
            frame = timeline(job.model, path, window, hop, labels, job.speaker)
        else:
            frame = conversation(job.model, path, turns, window, hop, labels)
        return segments(frame, shortest)
    except InputError as error:
        return pd.DataFrame({"path": [readable(path)], "error": [readable(str(error))]})


def _batch(frame: pd.DataFrame, schema: pa.Schema) -> pa.RecordBatch:
    table = pa.Table.from_pandas(frame, schema, preserve_index=False)
    return pa.record_batch([column.combine_chunks() for column in table.columns], schema=schema)
