"""What a corpus is, once read: utterances of known speakers, and what is wrong with its files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pandas as pd

from ser_plugins.errors import InputError

COLUMNS = ["id", "path", "emotion", "speaker", "fault"]
# Columns of tables, besides one for each label: predictions.csv, folds.csv, those of predict, embed and timeline.
RESERVED = {
    *("id", "path", "corpus", "speaker", "emotion", "predicted", "fold", "block", "fault"),
    *("seconds", "probability", "embedding", "start", "end", "warning", "error"),
}


def no_faults() -> pd.DataFrame:
    """Return an empty list of faults (columns ``path`` and ``fault``)."""
    return pd.DataFrame({"path": pd.Series(dtype=str), "fault": pd.Series(dtype=str)})


@dataclass(frozen=True)
class Corpus:
    """A corpus on disk: utterances of known speakers, with or without emotions.

    Attributes
    ----------
    name : str
        Short name, as in ``--corpus``.
    labels : tuple of str
        Emotions in a fixed order: the index of a label is the same in every fold. Empty where the corpus has none.
    table : pandas.DataFrame
        One row per utterance, in the order of the corpus: ``path`` and ``speaker``. A corpus of emotions also has
        ``id``, ``emotion`` and ``fault``: empty, or a known fault of a readable file. A corpus with folds of its own
        has ``fold``, from 1.
    faults : pandas.DataFrame
        Files that are not as the corpus says (``path``, ``fault``): missing, extra, unreadable, silent, mislabelled.
    licence : str
        Licence of the audio; model cards name it.
    synthetic : bool
        True where the audio was made by a program; every output says so.
    corpora : tuple of Corpus
        Parts of a merged corpus (see ``Merged``); the column ``corpus`` of the table has their names.
    root : pathlib.Path
        Folder that the paths of the table are below, where they are not absolute.

    Raises
    ------
    InputError
        If columns or utterances are missing, ids are not unique, or labels cannot be used.

    Example
    -------
    >>> Corpus("own", (), pd.DataFrame({"path": ["a.wav", "b.wav"], "speaker": ["ann", "bob"]})).speakers
    ['ann', 'bob']
    """

    name: str
    labels: tuple[str, ...]
    table: pd.DataFrame
    faults: pd.DataFrame = field(default_factory=no_faults)
    licence: str = "unknown"
    synthetic: bool = False
    corpora: tuple[Corpus, ...] = ()
    root: Path = Path()

    def __post_init__(self) -> None:
        needed = COLUMNS if self.labels else ["path", "speaker"]
        missing = [column for column in needed if column not in self.table.columns]
        if missing:
            raise InputError(f"corpus {self.name}: the table lacks the column(s) {', '.join(missing)}")
        if self.labels:
            self._check_labels()

    def _check_labels(self) -> None:
        if self.table.empty:
            raise InputError(f"corpus {self.name}: no utterance found; check --data_folder")
        doubled = self.table["id"][self.table["id"].duplicated()]
        if not doubled.empty:
            raise InputError(f"corpus {self.name}: id {doubled.iloc[0]!r} stands twice; ids must be unique")
        if len(set(self.labels)) < len(self.labels):
            raise InputError(f"corpus {self.name}: an emotion is named twice in {', '.join(self.labels)}; name it once")
        if taken := [label for label in self.labels if label in RESERVED or " => " in label]:
            raise InputError(f"corpus {self.name}: emotion {taken[0]!r} has a name that results need; rename it")
        unknown = sorted(set(self.table["emotion"]) - set(self.labels))
        if unknown:
            raise InputError(f"corpus {self.name}: unknown emotion {unknown[0]!r}; known: {', '.join(self.labels)}")

    @property
    def speakers(self) -> list[str]:
        """Speakers in native order of first appearance."""
        return list(dict.fromkeys(self.table["speaker"]))

    def checksum(self) -> str:
        """SHA-256 over ids, emotions and speakers: the same on every machine, whatever the folder."""
        text = self.table[["id", "emotion", "speaker"]].to_csv(index=False, lineterminator="\n")
        return hashlib.sha256(text.encode()).hexdigest()


class CorpusReader(Protocol):
    """What a corpus plugin is: an object whose ``read`` returns a `Corpus`."""

    def read(self) -> Corpus:
        """Read and check the corpus."""
        ...
