"""Tables with links, as Markdown; the template of the report makes HTML of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from os.path import relpath
from pathlib import Path
from urllib.parse import quote

import pandas as pd

ABSENT = "–"


@dataclass(frozen=True)
class Cell:
    """A text and its link: an address relative to the page, or nothing."""

    text: str
    link: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes
    ----------
    title : str
        Heading above the table.
    columns : sequence of str
        Names of the columns.
    rows : list of lists of Cell
        Cells of each row.
    note : str
        Text below the table.

    Example
    -------
    >>> table = Table("Runs", ["strategy", "accuracy"], [[Cell("S1"), Cell("67.50", "S1/fold1/")]], "In percent.")
    >>> print(table.markdown())
    ## Runs
    <BLANKLINE>
    | strategy | accuracy |
    |---|---|
    | S1 | [67.50](S1/fold1/) |
    <BLANKLINE>
    In percent.
    <BLANKLINE>
    """

    title: str
    columns: Sequence[str]
    rows: list[list[Cell]] = field(default_factory=list)
    note: str = ""

    def markdown(self) -> str:
        """Write the table as Markdown."""
        return "\n".join([f"## {self.title}", "", *self.lines(), "", *([self.note, ""] if self.note else [])])

    def lines(self) -> list[str]:
        """Write the columns and rows as lines of Markdown, without title and note."""
        rows = [_line(_markdown(cell) for cell in row) for row in self.rows]
        return [_line(self.columns), "|---" * len(self.columns) + "|", *rows]


def link(target: Path, page_folder: Path) -> str:
    """Return the address of a file or folder relative to the folder of a page.

    Example
    -------
    >>> link(Path("results/a b/fold1"), Path("results"))
    'a%20b/fold1'
    """
    return quote(Path(relpath(target, page_folder)).as_posix())


def number(value: float, factor: float = 1, digits: int = 2) -> str:
    """Format a number, and NaN as a dash.

    Example
    -------
    >>> number(0.675, 100), number(float("nan"))
    ('67.50', '–')
    """
    return ABSENT if pd.isna(value) else f"{factor * value:.{digits}f}"


def _markdown(cell: Cell) -> str:
    text = cell.text.replace("|", r"\|")
    return f"[{text}]({cell.link})" if cell.link else text


def _line(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"
