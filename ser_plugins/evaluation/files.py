"""Tables of results, read from CSV, Parquet or JSON Lines."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from ser_plugins.corpora.text import decode, read_csv
from ser_plugins.errors import InputError

NAMES = dict.fromkeys(["id", "path", "speaker", "emotion", "predicted", "sex", "intensity", "sentence"], str)
SUFFIXES = (".csv", ".parquet", ".jsonl")
SHOWN = 3


def read_table(file: Path) -> pd.DataFrame:
    """Read a table by the suffix of its file, plain or compressed (.gz); ids stay text, an empty cell is missing.

    Raises
    ------
    InputError
        If there is no such file, or it is no table with rows.

    Example
    -------
    >>> file = getfixture("tmp_path") / "table.jsonl"
    >>> _ = file.write_text('{"id": "007", "predicted": "sad"}')
    >>> read_table(file).to_dict("records")
    [{'id': '007', 'predicted': 'sad'}]
    """
    suffix = suffix_of(file)
    if suffix not in SUFFIXES:
        raise InputError(f"{file} is no .csv, .parquet or .jsonl file; give one")
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix.lower() == ".gz" else file.read_bytes()
        if suffix == ".parquet":
            table = pd.read_parquet(io.BytesIO(content))
        elif suffix == ".jsonl":
            table = pd.read_json(io.StringIO(decode(content, str(file))), lines=True, dtype=False)
        else:
            table = read_csv(decode(content, str(file)), str(file), NAMES)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"there is no file {file}; check the name") from error
    except (OSError, ValueError) as error:
        reason = str(error).split("\n", maxsplit=1)[0]
        raise InputError(f"{file} cannot be read as {suffix} ({reason}); give a table") from error
    if table.empty:
        raise InputError(f"{file} has no rows; give a table with one row per utterance")
    return table.rename(columns=str)


def suffix_of(file: Path) -> str:
    """Return the suffix of a table, without that of a compression.

    Example
    -------
    >>> suffix_of(Path("fold1/predictions.csv.gz"))
    '.csv'
    """
    return Path(file.name.lower().removesuffix(".gz")).suffix


def named(ids: Iterable[object]) -> str:
    """Name the first ids and count the others.

    Example
    -------
    >>> named(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    found = list(map(str, ids))
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more


def fold_numbers(file: Path, ids: pd.Series, folds: pd.Series) -> pd.Series:
    """Return the folds of utterances as numbers; raise an `InputError` that names those without one."""
    numbers = pd.to_numeric(folds, errors="coerce")
    if (unnumbered := numbers.isna()).any():
        raise InputError(f"{file}: the fold of {named(ids[unnumbered])} is no number; number folds from 1")
    return numbers
