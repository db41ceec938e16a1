"""What the commands on audio files print. PyTorch is not imported."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ser_plugins.errors import InputError
from ser_plugins.model_folder.source import EMOTIONS

logger = logging.getLogger(__name__)
ABOUT = "using builtin:emotions, trained on acted English speech (CREMA-D); --model selects another model"
SELDOM = ("warning", "error")  # columns that are printed where they have a value


def print_model(source: str) -> None:
    """Say which model answers where none was chosen."""
    if source == EMOTIONS:
        print(ABOUT, file=sys.stderr)


def print_table(columns: Mapping[str, Sequence[Any]], files: int) -> None:
    """Print a table of some files, and report those that could not be used."""
    errors = [error for error in columns["error"] if error is not None]
    shown = {name: values for name, values in columns.items() if name not in SELDOM or any(values)}
    cells = [[name, *map(_cell, values)] for name, values in shown.items()]
    widths = [max(map(len, column)) for column in cells]
    for row in zip(*cells, strict=True):
        print(" ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    report_errors(files, errors)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def report_errors(files: int, errors: Sequence[str]) -> None:
    """Log how many files could not be used; raise an `InputError` if none could."""
    if len(errors) == files:
        raise InputError(f"none of {files} files could be used; the first: {errors[0]}")
    if errors:
        logger.warning("%d of %d files could not be used; the column error says why", len(errors), files)
