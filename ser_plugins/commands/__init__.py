"""The command line ``ser-plugins``: one module per subcommand."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from ser_plugins.errors import InputError

COMMANDS = ("predict", "embed", "timeline", "enrol", "export", "demo", "report", "folds", "evaluate", "compare")


def main(words: Sequence[str] | None = None) -> None:
    """Run a subcommand; an `InputError` ends it with one line.

    Each subcommand is a module of this package. The first line of its docstring is the help text;
    ``add_arguments(parser)`` adds its arguments and ``run(given)`` runs it.

    Parameters
    ----------
    words : sequence of str, optional
        The command line; by default that of the process.
    """
    parser = argparse.ArgumentParser(prog="ser-plugins", description="Speech emotion recognition on audio files.")
    subparsers = parser.add_subparsers(required=True, metavar="|".join(COMMANDS))
    for name in COMMANDS:
        module = import_module(f"{__name__}.{name}")
        summary = (module.__doc__ or "").strip().splitlines()[0].rstrip(".")
        subparser = subparsers.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        subparser.set_defaults(run=module.run)
        module.add_arguments(subparser)
    given = parser.parse_args([_as_path(word) for word in (sys.argv[1:] if words is None else words)])
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in ("speechbrain.utils.quirks", "httpx"):  # they log each start and each request
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        given.run(given)
        sys.stdout.flush()
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except BrokenPipeError:  # the reader, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes the rest when it ends
        sys.exit(1)


def _as_path(word: str) -> str:
    """Write the name of an existing file that starts with one dash as ``./-name``: it is no option."""
    dashed = word.startswith("-") and not word.startswith("--") and len(word) > 2
    return os.path.join(os.curdir, word) if dashed and os.path.lexists(word) else word
