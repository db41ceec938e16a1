"""Write a report of all results in a folder, with its tables and figures."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("results", type=Path, nargs="?", default=Path("results"), help="(default: results)")


def run(given: argparse.Namespace) -> None:
    """Write report.html and report.md."""
    from ser_plugins.experiments.page import write_report  # noqa: PLC0415 — a command imports what it alone needs

    print(write_report(given.results))
