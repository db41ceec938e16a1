"""Put the results in a folder on one page, figures included."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("results", type=Path, nargs="?", default=Path("results"), help="folder of runs; results")


def run(given: argparse.Namespace) -> None:
    """Write report.html and report.md."""
    from ser_plugins.experiments.page import write_report  # noqa: PLC0415 — a command loads what it alone needs

    print(write_report(given.results))
