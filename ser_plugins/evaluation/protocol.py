"""The protocol of RAVDESS and CREMA-D: which utterances there are, and the block of each, without audio."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ser_plugins.corpora import cremad, ravdess
from ser_plugins.corpora.corpus import Corpus
from ser_plugins.corpora.folds import blocks, folds_table
from ser_plugins.errors import InputError
from ser_plugins.evaluation.files import fold_numbers, named, read_table
from ser_plugins.metric.wheel import EMOTIONS

N_FOLDS = 10
UTTERANCES: dict[str, tuple[tuple[str, ...], Callable[[], pd.DataFrame]]] = {
    "ravdess": (EMOTIONS, ravdess.utterances),
    "cremad": (tuple(cremad.CODES.values()), cremad.utterances),
}
GROUPS = ("sex", "intensity", "sentence")


@dataclass(frozen=True)
class Reference:
    """What predictions are compared with.

    Attributes
    ----------
    name : str
        Name of the corpus, or of the file of a table.
    labels : tuple of str
        Emotions in order.
    table : pandas.DataFrame
        One row per utterance: ``id``, ``speaker`` and ``emotion``. ``block`` is the fold that tests it, if the folds
        are known. ``sex``, ``intensity`` and ``sentence`` are there if they are known.

    Example
    -------
    >>> corpus = reference("cremad")
    >>> len(corpus.table), corpus.labels[0], corpus.groups
    (7442, 'angry', ['sex', 'intensity', 'sentence'])
    """

    name: str
    labels: tuple[str, ...]
    table: pd.DataFrame

    @property
    def corpus(self) -> str:
        """Name of the corpus in the lineage of a model: a training on a table of one's own records ``table``."""
        return self.name if self.name in UTTERANCES else "table"

    @property
    def groups(self) -> list[str]:
        """Columns of the table that results are split by."""
        return [name for name in GROUPS if name in self.table]


def reference(name: str) -> Reference:
    """Return the utterances of ``"ravdess"`` or ``"cremad"`` with the blocks of the ten folds."""
    corpus = _corpus(name)
    table = corpus.table.drop(columns=["path", "fault"])
    return Reference(name, corpus.labels, table.assign(block=table["speaker"].map(blocks(corpus, N_FOLDS))))


def protocol_folds(name: str) -> bytes:
    r"""Return ``id, speaker, emotion, block`` of all utterances of ``"ravdess"`` or ``"cremad"`` as CSV.

    The bytes equal those of the ``folds.csv`` that a training on the complete corpus writes.

    Example
    -------
    >>> print(*protocol_folds("ravdess").decode().splitlines()[:2], sep="\n")
    id,speaker,emotion,block
    03-01-01-01-01-01-01,01,neutral,1
    """
    return folds_table(_corpus(name), N_FOLDS)


def read_reference(file: Path) -> Reference:
    """Read a table of one's own: ``id``, ``emotion`` and ``speaker``, as CSV, Parquet or JSON Lines.

    ``fold``, the number of the fold that tests an utterance, ``sex``, ``intensity`` and ``sentence`` are optional. The
    labels are the emotions in alphabetical order.

    Raises
    ------
    InputError
        If the file is no such table, an id stands twice, or a cell is empty.
    """
    table = read_table(file)
    if missing := [name for name in ("id", "emotion", "speaker") if name not in table]:
        raise InputError(f"{file} lacks the column(s) {', '.join(missing)}; it has {', '.join(table.columns)}")
    table = table[[name for name in ("id", "speaker", "emotion", "fold", *GROUPS) if name in table]]
    table = table.rename(columns={"fold": "block"})
    if (empty := table.isna().any(axis=1)).any():
        raise InputError(f"{file}: a cell of {named(table['id'][empty])} is empty; fill it in")
    if (doubled := table["id"].duplicated()).any():
        raise InputError(f"{file}: {named(table['id'][doubled])} stands twice; keep one row of each id")
    if "block" in table:
        table = table.assign(block=fold_numbers(file, table["id"], table["block"]))
    names = [name for name in table if name != "block"]
    table = table.astype(dict.fromkeys(names, str))
    labels = tuple(sorted(set(table["emotion"])))
    if len(labels) < 2:
        raise InputError(f"{file} has one emotion, {', '.join(labels)}; give the whole table")
    return Reference(file.name, labels, table)


def _corpus(name: str) -> Corpus:
    labels, utterances = UTTERANCES[name]
    return Corpus(name, labels, utterances().assign(path="", fault=""))
