"""Write the folds of RAVDESS or CREMA-D as a table, without audio."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("corpus", choices=["ravdess", "cremad"], metavar="ravdess|cremad", help="the corpus")
    parser.add_argument("--output", type=Path, metavar="FILE", help="CSV to write (default: standard output)")


def run(given: argparse.Namespace) -> None:
    """Print or write the table, and print its SHA-256 to standard error."""
    import hashlib  # noqa: PLC0415 — a command imports what it alone needs
    import sys  # noqa: PLC0415

    from ser_plugins.evaluation.protocol import protocol_folds  # noqa: PLC0415
    from ser_plugins.files import atomic_write  # noqa: PLC0415

    content = protocol_folds(given.corpus)
    if given.output is None:
        sys.stdout.write(content.decode())
    else:
        atomic_write(given.output, content)
    print(f"SHA-256 {hashlib.sha256(content).hexdigest()}", file=sys.stderr)
