"""Compare systems by their predictions of the same utterances."""

from __future__ import annotations

import argparse
from pathlib import Path

from ser_plugins.commands.options import add_reference_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "systems",
        nargs="+",
        type=Path,
        metavar="SYSTEM",
        help="predictions of a system: a table, or a folder of one or of fold1, fold2 …",
    )
    add_reference_options(parser)


def run(given: argparse.Namespace) -> None:
    """Print the comparison, and write it where asked."""
    # A command imports what it alone needs.
    import json  # noqa: PLC0415

    from ser_plugins.commands.options import reference_of  # noqa: PLC0415
    from ser_plugins.evaluation.compare import compare, text  # noqa: PLC0415
    from ser_plugins.evaluation.system import read_system  # noqa: PLC0415
    from ser_plugins.files import atomic_write  # noqa: PLC0415

    reference = reference_of(given)
    result = compare([read_system([source], reference) for source in given.systems], reference)
    print(text(result))
    if given.json is not None:
        atomic_write(given.json, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
