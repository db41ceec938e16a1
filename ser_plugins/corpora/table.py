"""A corpus of your own: a CSV or Parquet table."""

from __future__ import annotations

import hashlib
import logging
import os
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from ser_plugins.corpora.corpus import COLUMNS, Corpus
from ser_plugins.corpora.files import check_utterances
from ser_plugins.corpora.text import decode, read_csv
from ser_plugins.errors import InputError

logger = logging.getLogger(__name__)
NEEDED = ["path", "emotion", "speaker"]
INVISIBLE = "\ufeff\u200b"  # byte order mark, space of no width


class Table:
    """Utterances of a CSV or Parquet file: ``path``, ``emotion``, ``speaker``, and optionally ``id`` and ``fold``.

    A CSV is UTF-8, with commas. Speakers and emotions lose surrounding spaces and become Unicode NFC. A recording that
    stands twice is a listed fault. One that stands for two speakers is refused: it would be in two parts of a fold.

    Parameters
    ----------
    data_folder : str
        The file. Relative paths in it start from its folder.
    labels : sequence of str, optional
        Emotions in order; those of the file, sorted, where not given.
    exclude_faults : bool
        Leave out utterances that are silent, cut off or stand twice.
    licence : str
        Licence of the recordings, for the model card.
    """

    def __init__(
        self,
        data_folder: str | None = None,
        labels: Sequence[str] | None = None,
        exclude_faults: bool = False,
        licence: str = "unknown",
    ) -> None:
        self.file = data_folder
        self.labels = labels
        self.exclude_faults = exclude_faults
        self.licence = licence

    def read(self) -> Corpus:
        """Read and check the corpus."""
        if self.file is None:
            raise InputError("corpus table needs --data_folder: a .csv or .parquet file")
        if isinstance(self.labels, str):
            raise InputError(f"--emotions {self.labels}: give a list, as [happy, sad]")
        file = Path(self.file)
        table = _read(file)
        _check_cells(file, table)
        table = table.assign(**{column: table[column].astype(str) for column in NEEDED})
        table = table.assign(**{column: _one_form(file, table[column]) for column in ("speaker", "emotion")})
        table["path"] = [str(file.parent / path) for path in table["path"]]
        table["id"] = _ids(file, table)
        labels = tuple(map(_normal, map(str, self.labels or sorted(set(table["emotion"])))))
        # Of other columns nothing is asked, and some names mean something in a training.
        table = table[[column for column in [*COLUMNS, "fold"] if column in table.columns]].assign(fault="")
        table["fault"] = _find_copies(file, table, refuse=not self.exclude_faults)
        table, faults = check_utterances("table", table, [], {}, False, self.exclude_faults)
        return Corpus("table", labels, table, faults, licence=str(self.licence))


def _read(file: Path) -> pd.DataFrame:
    try:
        if file.suffix.lower() == ".parquet":
            table = pd.read_parquet(file)
        else:
            text = decode(file.read_bytes(), str(file))
            table = read_csv(text, str(file), dict.fromkeys(["id", *NEEDED], str))
    except FileNotFoundError as error:
        raise InputError(f"there is no table {file}; check --data_folder") from error
    except InputError:
        raise
    except (OSError, ValueError) as error:
        reason = str(error).split("\n", maxsplit=1)[0]
        raise InputError(f"{file} is not a CSV or Parquet table ({reason}); give such a file") from error
    absent = [column for column in NEEDED if column not in table.columns]
    if absent:
        there = ", ".join(map(str, table.columns))
        raise InputError(f"{file} lacks the column(s) {', '.join(absent)}; rename the columns: it has {there}")
    return table


def _check_cells(file: Path, table: pd.DataFrame) -> None:
    if table.empty:
        raise InputError(f"{file}: no utterance found; add rows")
    named = [column for column in ["id", *NEEDED] if column in table.columns]
    empty = table[named].isna() | table[named].map(lambda cell: isinstance(cell, str) and not _normal(cell))
    if empty.to_numpy().any():
        row, column = divmod(int(empty.to_numpy().argmax()), len(named))
        raise InputError(f"{file}: row {row + 1} after the header lacks {named[column]}; fill it in")


def _normal(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).strip(INVISIBLE).split())


def _one_form(file: Path, names: pd.Series[str]) -> pd.Series[str]:
    """Write names that differ by spaces or Unicode form alike; refuse those that differ by case or width."""
    found = {name: _normal(name) for name in dict.fromkeys(names)}
    if changed := [name for name, normal in found.items() if name != normal]:
        others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        logger.warning(
            "%s: %s %r%s written as %r: spaces and Unicode forms tell nobody apart",
            *(file, names.name, changed[0], others, found[changed[0]]),
        )
    seen: dict[str, str] = {}
    for normal in dict.fromkeys(found.values()):
        other = seen.setdefault(unicodedata.normalize("NFKC", normal).casefold(), normal)
        if other != normal:
            raise InputError(f"{file}: {names.name} {other!r} and {normal!r} differ by case alone; write them alike")
    return names.map(found)


def _ids(file: Path, table: pd.DataFrame) -> pd.Series[str]:
    if "id" in table.columns:
        return table["id"].astype(str)
    ids = table["path"].map(lambda path: Path(path).stem)
    if not (doubled := ids[ids.duplicated()]).empty:
        raise InputError(f"{file}: two files are named {doubled.iloc[0]}; add a column id, unique to each")
    return ids


def _find_copies(file: Path, table: pd.DataFrame, refuse: bool) -> list[str]:
    """Say of each utterance which earlier or later one has the same recording, by its place or its bytes."""
    with ThreadPoolExecutor() as pool:
        keys = list(pool.map(_content, table["path"]))
    faults = []
    groups = table.assign(key=keys).groupby("key", sort=False)
    first_rows, last_rows = groups["path"].transform("first"), groups["path"].transform("last")
    speakers = groups["speaker"].transform("nunique")
    sizes = groups["path"].transform("size")
    for path, first, last, count, size in zip(table["path"], first_rows, last_rows, speakers, sizes, strict=True):
        if count > 1 and refuse:
            raise InputError(
                f"{file}: {path} and {last} are one recording of two speakers; correct them, or give "
                "--exclude_faults true to leave it out"
            )
        faults.append(f"stands {size} times: the same recording as {last if path == first else first}" * (size > 1))
    return faults


def _content(path: str) -> str:
    """Return what two utterances of one recording have in common; of what cannot be read, its real path."""
    real = os.path.realpath(path)
    if not os.path.isfile(real):
        return real
    digest = hashlib.sha256()
    try:
        with open(real, "rb") as content:
            while chunk := content.read(1 << 20):
                digest.update(chunk)
    except OSError:
        return real
    return digest.hexdigest()
