"""Serve a web page to try a model on recordings."""

from __future__ import annotations

import argparse

from ser_plugins.commands.options import add_model_argument
from ser_plugins.model_folder.source import EMOTIONS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_model_argument(parser, default=EMOTIONS)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on (default: 7860)")


def run(given: argparse.Namespace) -> None:
    """Serve the page until the process is interrupted."""
    from ser_plugins.commands.page import make_app  # noqa: PLC0415 — a command imports what it alone needs
    from ser_plugins.errors import InputError  # noqa: PLC0415

    app = make_app(given.model, given.revision)
    try:
        app.launch(server_name=given.host, server_port=given.port)
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen on port {given.port} of {given.host}; give another --port") from error
