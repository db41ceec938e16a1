"""Tell the emotion of sound files, or over the time of long recordings.

The probabilities of the labels add up to one. With --output, a run that was broken off goes on where it was.
"""

from __future__ import annotations

import argparse

from ser_plugins.commands.options import add_inference_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add_inference_arguments(parser)
    parser.add_argument("--labels", help="emotions to choose among, as happy,sad; all that the model knows")
    parser.add_argument("--timeline", action="store_true", help="emotion over time, by windows, with a figure of each")
    parser.add_argument("--window", type=float, help="seconds of a window of --timeline; 3")
    parser.add_argument("--hop", type=float, help="seconds from one window to the next; 1")


def run(given: argparse.Namespace) -> None:
    """Print or write the table."""
    from ser_plugins.commands import inference as command  # noqa: PLC0415
    from ser_plugins.errors import InputError  # noqa: PLC0415 — a command loads what it alone needs

    windows = {key: value for key in ("window", "hop") if (value := getattr(given, key)) is not None}
    if windows and not given.timeline:
        raise InputError("--window and --hop are those of --timeline; give that, too")
    command.timelines(given, **windows) if given.timeline else command.predictions(given)
