"""Options that several subcommands share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ser_plugins.errors import InputError
from ser_plugins.model_folder.source import EMOTIONS

if TYPE_CHECKING:
    from ser_plugins.evaluation.protocol import Reference


def add_model_argument(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add the model as the argument of a command, and its revision."""
    about = "model folder of a run, or USER/NAME on the Hub"
    if default is None:
        parser.add_argument("model", help=about)
    else:
        parser.add_argument("model", nargs="?", default=default, help=f"{about} (default: %(default)s)")
    add_revision_option(parser)


def add_revision_option(parser: argparse.ArgumentParser) -> None:
    """Add the revision of a model on the Hub."""
    parser.add_argument("--revision", help="branch, tag or commit of the model on the Hub")


def add_speaker_option(parser: argparse.ArgumentParser) -> None:
    """Add the recordings that statistics of the speaker are measured on."""
    parser.add_argument(
        "--speaker",
        nargs="+",
        metavar="PATH",
        help="recordings of the speaker alone, for a model with speaker normalisation (S7, S8)",
    )


def add_inference_arguments(parser: argparse.ArgumentParser, output_required: bool = False) -> None:
    """Add what commands need that run a model on files."""
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="audio file, folder, 'pattern', or - for a list of paths on standard input",
    )
    parser.add_argument(
        "--model", default=EMOTIONS, help="model folder of a run, or USER/NAME on the Hub (default: %(default)s)"
    )
    add_revision_option(parser)
    parser.add_argument("--device", help="cpu, cuda, cuda:1 … (default: a GPU if there is one)")
    add_speaker_option(parser)
    parser.add_argument(
        "--output",
        type=Path,
        required=output_required,
        metavar="FILE",
        help="table to write, .csv, .jsonl or .parquet; an interrupted run is resumed",
    )


def add_batch_options(parser: argparse.ArgumentParser) -> None:
    """Add how files are read and batched."""
    parser.add_argument("--jobs", type=int, help="reading processes (default: one per core)")
    parser.add_argument("--batch_seconds", type=float, default=60.0, help="longest batch in seconds (default: 60)")
    about = "compute on a Ray cluster, HOST:PORT, auto or local; --output is a folder of Parquet parts"
    parser.add_argument("--ray", metavar="ADDRESS", help=about)


def check_batches(given: argparse.Namespace) -> None:
    """Raise an `InputError` unless the options of reading and batching can be used."""
    if given.ray and given.jobs is not None:
        raise InputError("with --ray each worker reads for itself; leave --jobs out")
    given.jobs = (os.cpu_count() or 1) if given.jobs is None else given.jobs
    if given.jobs < 0 or given.batch_seconds <= 0:
        raise InputError("give --batch_seconds above 0, and --jobs of 0 (no other process) or more")


def add_labels_option(parser: argparse.ArgumentParser) -> None:
    """Add the labels to choose from."""
    parser.add_argument("--labels", help="emotions to choose from, as happy,sad (default: all of the model)")


def add_reference_options(parser: argparse.ArgumentParser, *more: str) -> None:
    """Add what predictions are compared with, and the JSON file to write; ``more`` are corpora without known folds."""
    reference = parser.add_mutually_exclusive_group(required=True)
    reference.add_argument("--corpus", choices=["ravdess", "cremad", *more], help="the corpus, with its ten folds")
    reference.add_argument("--labels", type=Path, metavar="TABLE", help="own table with id, emotion and speaker")
    parser.add_argument("--json", type=Path, metavar="FILE", help="results to write")


def reference_of(given: argparse.Namespace) -> Reference:
    """Return the corpus or the table that predictions are compared with."""
    from ser_plugins.evaluation.protocol import read_reference, reference  # noqa: PLC0415 — pandas loads slowly

    return reference(given.corpus) if given.corpus else read_reference(given.labels)
