"""Serve a page that hears utterances with a model."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("model", help="model folder, or USER/NAME on the Hub")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 127.0.0.1")
    parser.add_argument("--port", type=int, default=7860, help="port to listen at; 7860")


def run(given: argparse.Namespace) -> None:
    """Serve until interrupted."""
    from ser_plugins.commands.page import make_app  # noqa: PLC0415 — a command loads what it alone needs
    from ser_plugins.errors import InputError  # noqa: PLC0415

    app = make_app(given.model, given.revision)
    try:
        app.launch(server_name=given.host, server_port=given.port)
    except (OSError, OverflowError) as error:
        raise InputError(f"port {given.port} of {given.host} is not to be had; give another --port") from error
