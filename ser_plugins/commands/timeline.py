"""Predict the emotion over time in recordings of any length, with a figure of each."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ser_plugins.commands.options import add_inference_arguments, add_labels_option


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_inference_arguments(parser)
    add_labels_option(parser)
    add_window_options(parser)


def add_window_options(parser: argparse.ArgumentParser, shown: bool = True) -> None:
    """Add the options of windows and segments; ``predict --timeline`` takes them as well, and does not list them."""

    def add(name: str, about: str, **options: Any) -> None:
        parser.add_argument(name, help=about if shown else argparse.SUPPRESS, **options)

    add("--window", "length of a window in seconds (default: 3)", type=float)
    add("--hop", "step from one window to the next in seconds (default: 1)", type=float)
    formats = "join windows to segments of one emotion; --output may also be .rttm, .txt (Audacity) or .TextGrid"
    add("--segments", formats, action="store_true")
    add("--min_seconds", "shortest segment (default: 2)", type=float)
    turns = "who speaks when, RTTM or CSV with start, end and speaker: segments by speaker"
    add("--turns", turns, type=Path, metavar="FILE")


def run(given: argparse.Namespace) -> None:
    """Print or write the table, and draw the figures."""
    # A command imports what it alone needs.
    from ser_plugins.errors import InputError  # noqa: PLC0415

    if given.segments:
        from ser_plugins.commands.segments import run_segments  # noqa: PLC0415

        run_segments(given)
        return
    if given.turns is not None or given.min_seconds is not None:
        raise InputError("--turns and --min_seconds are of segments; give --segments")
    from ser_plugins.commands.recordings import run_recordings  # noqa: PLC0415

    run_recordings(given)
