"""Embed sound files.

A run that was broken off goes on where it was.
"""

from __future__ import annotations

import argparse

from ser_plugins.commands.options import add_inference_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add_inference_arguments(parser, output_required=True)


def run(given: argparse.Namespace) -> None:
    """Write the table."""
    from ser_plugins.commands import inference as command  # noqa: PLC0415 — a command loads what it alone needs

    command.embeddings(given)
