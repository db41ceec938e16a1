"""Predict the emotion over time in recordings of any length, with a figure of each."""

from __future__ import annotations

import argparse

from ser_plugins.commands.options import add_inference_arguments, add_labels_option


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_inference_arguments(parser)
    add_labels_option(parser)
    parser.add_argument("--window", type=float, help="length of a window in seconds (default: 3)")
    parser.add_argument("--hop", type=float, help="step from one window to the next in seconds (default: 1)")


def run(given: argparse.Namespace) -> None:
    """Print or write the table, and draw the figures."""
    from ser_plugins.commands.recordings import run_recordings  # noqa: PLC0415 — a command imports what it alone needs

    run_recordings(given)
