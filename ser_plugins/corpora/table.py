"""A corpus of your own: a CSV or Parquet table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ser_plugins.corpora.files import check_utterances
from ser_plugins.corpora.manifest import COLUMNS, Corpus
from ser_plugins.errors import InputError

NEEDED = ["path", "emotion", "speaker"]


class Table:
    """Utterances of a CSV or Parquet file: ``path``, ``emotion``, ``speaker``, and optionally ``id`` and ``fold``.

    Parameters
    ----------
    data_folder : str
        The file. Relative paths in it start from its folder.
    labels : sequence of str, optional
        Emotions in order; those of the file, sorted, where not given.
    exclude_faults : bool
        Leave out utterances that are silent.
    """

    def __init__(
        self, data_folder: str | None = None, labels: Sequence[str] | None = None, exclude_faults: bool = False
    ) -> None:
        self.file = data_folder
        self.labels = labels
        self.exclude_faults = exclude_faults

    def read(self) -> Corpus:
        """Read and check the corpus."""
        if self.file is None:
            raise InputError("corpus table needs --data_folder: a .csv or .parquet file")
        if isinstance(self.labels, str):
            raise InputError(f"--emotions {self.labels}: give a list, as [happy, sad]")
        file = Path(self.file)
        table = _read(file)
        absent = [column for column in NEEDED if column not in table.columns]
        if absent:
            there = ", ".join(map(str, table.columns))
            raise InputError(f"{file} lacks the column(s) {', '.join(absent)}; name them so: it has {there}")
        named = [column for column in ["id", *NEEDED] if column in table.columns]
        empty = table[named].isna()
        if empty.to_numpy().any():
            row, column = divmod(int(empty.to_numpy().argmax()), len(named))
            raise InputError(f"{file}: row {row + 1} lacks {named[column]}; fill it in")
        table = table.assign(**{column: table[column].astype(str) for column in NEEDED})
        table["path"] = [str(file.parent / path) for path in table["path"]]
        if "id" not in table.columns:
            table["id"] = [Path(path).stem for path in table["path"]]
            if not (doubled := table["id"][table["id"].duplicated()]).empty:
                raise InputError(f"{file}: two files are named {doubled.iloc[0]}; add a column id, unique to each")
        table["id"] = table["id"].astype(str)
        labels = tuple(map(str, self.labels or sorted(set(table["emotion"]))))
        # Of other columns nothing is asked, and some names mean something in a training.
        table = table[[column for column in [*COLUMNS, "fold"] if column in table.columns]].assign(fault="")
        table, faults = check_utterances("table", table, [], {}, False, self.exclude_faults)
        return Corpus("table", labels, table, faults)


def _read(file: Path) -> pd.DataFrame:
    try:
        if file.suffix.lower() == ".parquet":
            return pd.read_parquet(file)
        # Speakers and ids such as 007 are names, not numbers; NA and None are names, too.
        names = dict.fromkeys(["id", *NEEDED], str)
        return pd.read_csv(file, dtype=names, keep_default_na=False, na_values=[""])
    except FileNotFoundError as error:
        raise InputError(f"there is no table {file}; check --data_folder") from error
    except (OSError, ValueError) as error:
        reason = str(error).split("\n", maxsplit=1)[0]
        raise InputError(f"{file} is not a CSV or Parquet table ({reason}); give such a file") from error
