"""Options that several commands share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def add_speaker_argument(parser: argparse.ArgumentParser) -> None:
    """Add whose voice a model that normalises by speaker is told."""
    parser.add_argument(
        "--speaker", nargs="+", metavar="PATH", help="recordings of the one who speaks, for a model that asks for it"
    )


def add_inference_arguments(parser: argparse.ArgumentParser, output_required: bool = False) -> None:
    """Add what commands take that run a model on files."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="file, folder, 'pattern', or - for a list on stdin")
    parser.add_argument("--model", required=True, help="folder of a model, or USER/NAME on the Hub")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 …; a GPU where there is one")
    add_speaker_argument(parser)
    parser.add_argument("--output", type=Path, required=output_required, help="table.csv, .jsonl or .parquet")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes that read files; one a core")
    parser.add_argument("--batch_seconds", type=float, default=60.0, help="seconds of audio in a batch at most; 60")
