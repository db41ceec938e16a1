"""Adapt a model to one person by a few labelled clips.

The folder written is a model like any other.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ser_plugins.commands.options import add_model_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_model_argument(parser)
    about = "CSV table of the person's clips, with columns path and emotion"
    parser.add_argument("--labelled", type=Path, required=True, metavar="FILE", help=about)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="model folder to write")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 … (default: a GPU if there is one)")


def run(given: argparse.Namespace) -> None:
    """Write the folder."""
    from ser_plugins.inference.enrolment import enrol  # noqa: PLC0415 — a command imports what it alone needs

    clips, before, after = enrol(given.model, given.labelled, given.output, given.revision, given.device)
    print(f"{given.output}: {clips} clips; {before} recognised by the model, {after} after adaptation to all others")
