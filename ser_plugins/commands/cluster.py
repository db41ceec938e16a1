"""Tables of files that a Ray cluster computes: a folder of Parquet parts."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import pyarrow.compute as pc
import pyarrow.dataset
from tqdm import tqdm

from ser_plugins.commands.printing import report_errors
from ser_plugins.commands.tables import prepare
from ser_plugins.errors import InputError
from ser_plugins.files import lock_folder
from ser_plugins.inference.cluster import FileEmbedder, begin_parts, connect, plan_parts, write_parts
from ser_plugins.inference.speaker import statistics_values
from ser_plugins.inference.table import WRITERS, identity_of


def run_on_cluster(given: argparse.Namespace, kind: type[FileEmbedder], settings: Mapping[str, Any]) -> None:
    """Write the parts that are missing in the folder ``--output``.

    Parameters
    ----------
    given : argparse.Namespace
        The arguments of ``predict`` or ``embed``.
    kind : type
        `FileEmbedder` or `FilePredictor`.
    settings : mapping
        What ``kind`` takes beside the options of every command.
    """
    if given.output is None or given.output.suffix.lower() in WRITERS:
        raise InputError("--ray writes a folder of Parquet parts; give the name of a folder as --output")
    job = prepare(given)
    source = os.path.abspath(given.model) if os.path.exists(given.model) else given.model
    common = {"revision": given.revision, "device": given.device, "batch_seconds": given.batch_seconds}
    make = partial(kind, source, **common, speaker=job.speaker, **settings)
    files = [os.path.abspath(path) for path in job.files]  # workers have folders of their own
    facts = [job.model.checksum, job.model.audio_normalizer.settings(), statistics_values(job.speaker)]
    identity = identity_of([kind.__name__, *facts, common, dict(settings)], files)
    parts = plan_parts(files)
    connect(given.ray)
    with lock_folder(given.output):
        begin_parts(given.output, identity)
        done = sum((given.output / name).exists() for name in parts)
        written = write_parts(parts, make, given.output.absolute(), given.device)
        for _ in tqdm(written, total=len(parts), initial=done, unit="part"):
            pass
        for left in given.output.glob(".part-*"):  # by workers that died
            left.unlink()
    print(given.output)
    table = pyarrow.dataset.dataset(given.output, format="parquet")
    errors = table.to_table(["error"], filter=pc.field("error").is_valid())["error"].to_pylist()
    report_errors(table.count_rows(), errors)
