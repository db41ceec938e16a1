"""Evaluate predictions of any system on RAVDESS, CREMA-D or a table of your own."""

from __future__ import annotations

import argparse
from pathlib import Path

from ser_plugins.commands.options import add_reference_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "predictions",
        nargs="+",
        type=Path,
        metavar="PREDICTIONS",
        help="table with id, and predicted or one probability per emotion: one, one per fold, or a folder of them",
    )
    add_reference_options(parser)
    parser.add_argument("--html", type=Path, metavar="FILE", help="page with figures to write")


def run(given: argparse.Namespace) -> None:
    """Print the measures, and write them where asked."""
    # A command imports what it alone needs.
    import json  # noqa: PLC0415

    from ser_plugins.commands.options import reference_of  # noqa: PLC0415
    from ser_plugins.evaluation.evaluate import evaluate  # noqa: PLC0415
    from ser_plugins.evaluation.page import html, text  # noqa: PLC0415
    from ser_plugins.evaluation.system import read_system  # noqa: PLC0415
    from ser_plugins.files import atomic_write  # noqa: PLC0415

    reference = reference_of(given)
    result = evaluate(read_system(given.predictions, reference), reference)
    print(text(result))
    if given.json is not None:
        atomic_write(given.json, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    if given.html is not None:
        atomic_write(given.html, html(result))
