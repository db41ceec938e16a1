"""Export a model to ONNX, for onnxruntime."""

from __future__ import annotations

import argparse
from pathlib import Path

from ser_plugins.commands.options import add_model_argument, add_speaker_option


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_model_argument(parser)
    parser.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="file to write")
    parser.add_argument("--int8", type=Path, metavar="FILE", help="file to write with 8-bit weights and activations")
    add_speaker_option(parser)


def run(given: argparse.Namespace) -> None:
    """Write the files."""
    from ser_plugins.inference.onnx import export  # noqa: PLC0415 — a command imports what it alone needs

    export(given.model, given.onnx, given.int8, given.revision, given.speaker)
    for path in filter(None, (given.onnx, given.int8)):
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")
