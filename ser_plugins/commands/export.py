"""Write a model folder as ONNX, for onnxruntime."""

from __future__ import annotations

import argparse
from pathlib import Path

from ser_plugins.commands.options import add_speaker_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("model", help="model/ or encoder/ folder of a run, or USER/NAME on the Hub")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="file to write")
    add_speaker_argument(parser)
    parser.add_argument("--int8", type=Path, metavar="FILE", help="file to write the same to, in 8-bit integers")


def run(given: argparse.Namespace) -> None:
    """Write the files."""
    from ser_plugins.inference.onnx import export  # noqa: PLC0415 — a command loads what it alone needs

    export(given.model, given.onnx, given.int8, given.revision, given.speaker)
    for path in filter(None, (given.onnx, given.int8)):
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")
