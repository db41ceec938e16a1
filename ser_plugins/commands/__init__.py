"""The command line ``ser-plugins``: one module a subcommand."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib import import_module

from ser_plugins.errors import InputError

COMMANDS = ("demo", "embed", "export", "predict", "report")


def main(words: Sequence[str] | None = None) -> None:
    """Run a subcommand; what the user can mend ends it with one line.

    Each module of this package has a docstring, whose first line is its help, ``add_arguments(parser)`` and
    ``run(given)``.

    Parameters
    ----------
    words : sequence of str, optional
        The command line; that of the process where not given.
    """
    parser = argparse.ArgumentParser(prog="ser-plugins", description="Speech emotion embeddings with ser-plugins.")
    subparsers = parser.add_subparsers(required=True, metavar="|".join(COMMANDS))
    for name in COMMANDS:
        module = import_module(f"{__name__}.{name}")
        about = (module.__doc__ or "").strip().splitlines()[0].rstrip(".")
        one = subparsers.add_parser(name, help=about, description=about, allow_abbrev=False)
        one.set_defaults(run=module.run)
        module.add_arguments(one)
    given = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in ("speechbrain.utils.quirks", "httpx"):  # they tell of every start and every request
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        given.run(given)
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
