"""What the commands on audio files share: reading their arguments, and printing or writing the table."""

from __future__ import annotations

import argparse
import codecs
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ser_plugins.audio.speaker import SpeakerStatistics
from ser_plugins.commands.printing import print_model, print_table, report_errors
from ser_plugins.errors import InputError, disk_full_told
from ser_plugins.inference.files import find_files
from ser_plugins.inference.speaker import statistics_or_warning, statistics_values
from ser_plugins.inference.utterances import Columns, Output, table_chunks
from ser_plugins.memory import keep_memory
from ser_plugins.model_folder.plain import PlainModel, load_plain

if TYPE_CHECKING:
    import pyarrow as pa

    from ser_plugins.inference.table import PartialTable


class Job(NamedTuple):
    """A model, the files that it runs on, and statistics of their speaker."""

    model: PlainModel
    files: list[str]
    speaker: SpeakerStatistics | None


def prepare(given: argparse.Namespace) -> Job:
    """Find the files, load the model, and measure the speaker."""
    paths = [line for path in given.paths for line in (_listed_paths() if path == "-" else [path])]
    files = find_files(path for path in paths if path)
    if not files:
        raise InputError("no path is given; give files, folders or patterns")
    cluster = getattr(given, "ray", None)  # whose workers have the device
    if not cluster and (shards := [path for path in files if path.endswith(".tar")]):
        raise InputError(f"{shards[0]} is a shard, which is read by --ray; on one machine give --ray local")
    model = load_plain(given.model, given.revision, "cpu" if cluster else given.device)
    print_model(given.model)
    turns = getattr(given, "turns", None)  # which have the speech of each speaker
    return Job(model, files, None if turns else statistics_or_warning(model, given.speaker))


def _listed_paths() -> list[str]:
    from ser_plugins.corpora.text import decode  # noqa: PLC0415 — the corpora take a while to import

    data = sys.stdin.buffer.read()
    text = decode(data, "standard input") if b"\0" in data else os.fsdecode(data.removeprefix(codecs.BOM_UTF8))
    return [line for line in text.replace("\r\n", "\n").split("\n") if line]  # other marks are parts of names


def split_labels(labels: str | None) -> list[str] | None:
    """Split the value of ``--labels``."""
    return None if labels is None else [label.strip() for label in labels.split(",")]


def run_files(given: argparse.Namespace, job: Job, output: Output, shown: list[str], settings: Iterable[Any]) -> None:
    """Print the columns ``shown`` of a table with one row per file, or write the table."""
    keep_memory()

    def chunks(skip: int) -> Iterator[Columns]:
        return table_chunks(job.model, job.files, output, given.jobs, given.batch_seconds, job.speaker, skip)

    if given.output is None:
        found = list(chunks(0))
        print_table({name: [value for chunk in found for value in chunk[name]] for name in shown}, len(job.files))
        return
    from ser_plugins.inference.table import record_batch, schema_of  # noqa: PLC0415 — pandas takes a while

    schema = schema_of(output.types)
    batches = lambda part: (record_batch(chunk, schema) for chunk in chunks(part.chunks))  # noqa: E731
    write_table(given, job, schema, batches, [*settings, given.batch_seconds])


def write_table(
    given: argparse.Namespace,
    job: Job,
    schema: pa.Schema,
    chunks: Callable[[PartialTable], Iterator[pa.RecordBatch]],
    settings: Iterable[Any],
) -> None:
    """Write a table chunk by chunk, after the chunks of an interrupted run.

    Parameters
    ----------
    given : argparse.Namespace
        The arguments, of which ``output`` is the table.
    job : Job
        The model and the files.
    schema : pyarrow.Schema
        Columns of the table.
    chunks : callable
        Yields the chunks that are missing in a `PartialTable`.
    settings : iterable
        Whatever else the table depends on, as plain JSON.
    """
    from ser_plugins.inference.table import PartialTable, identity_of  # noqa: PLC0415 — pandas takes a while

    model = job.model
    identity = [model.checksum, model.device, model.audio_normalizer.settings(), statistics_values(job.speaker)]
    with disk_full_told(given.output.parent):
        part = PartialTable(given.output, schema, identity_of([*identity, *settings], job.files))
        for chunk in chunks(part):
            part.append(chunk)
        errors = [error for chunk in part.read() for error in chunk.column("error").to_pylist() if error]
        part.finish()
    print(given.output)
    report_errors(len(job.files), errors)
