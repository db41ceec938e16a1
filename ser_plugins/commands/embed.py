"""Embed audio files."""

from __future__ import annotations

import argparse

from ser_plugins.commands.options import add_batch_options, add_inference_arguments, check_batches


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_inference_arguments(parser, output_required=True)
    add_batch_options(parser)


def run(given: argparse.Namespace) -> None:
    """Write the table."""
    check_batches(given)
    # A command imports what it alone needs.
    from ser_plugins.commands.tables import prepare, run_files  # noqa: PLC0415
    from ser_plugins.inference.utterances import embedding_output  # noqa: PLC0415

    if given.ray:
        from ser_plugins.commands.cluster import run_on_cluster  # noqa: PLC0415
        from ser_plugins.inference.cluster import FileEmbedder  # noqa: PLC0415

        run_on_cluster(given, FileEmbedder, {})
        return
    run_files(given, prepare(given), embedding_output(), [], ["embed"])
