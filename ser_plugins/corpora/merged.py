"""Several corpora as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from ser_plugins.corpora.corpus import COLUMNS, Corpus, CorpusReader
from ser_plugins.errors import InputError


class Merged:
    """Corpora that are trained on together; emotions of one name are one emotion.

    Block k of it is block k of each, so that no speaker is in two parts and each corpus keeps its folds. The table has
    a column ``corpus``, and that name stands before each id and speaker. The corpora themselves stay at hand, as
    ``Corpus.corpora``: results are reported for each.

    Parameters
    ----------
    readers : mapping of str to CorpusReader
        The corpora by name; the option that names the folder of one is ``--<name>_folder``.

    Raises
    ------
    InputError
        On reading, where one of them cannot be read, or is merged itself.

    Example
    -------
    >>> from ser_plugins.corpora import Synthetic
    >>> folder = str(getfixture("tmp_path"))
    >>> corpus = Merged({"one": Synthetic(folder, 2, 1), "two": Synthetic(folder, 1, 1, seed=1)}).read()
    >>> corpus.name, len(corpus.table), corpus.speakers
    ('one+two', 24, ['one-speaker01', 'one-speaker02', 'two-speaker01'])
    """

    def __init__(self, readers: Mapping[str, CorpusReader]) -> None:
        self.readers = readers

    def read(self) -> Corpus:
        """Read and check all of them."""
        corpora = tuple(_read(name, reader) for name, reader in self.readers.items())
        if nested := [corpus.name for corpus in corpora if corpus.corpora]:
            raise InputError(f"corpus {nested[0]} is merged itself; give the corpora that it is of, each by its name")
        return Corpus(
            "+".join(self.readers),
            tuple(dict.fromkeys(label for corpus in corpora for label in corpus.labels)),
            pd.concat([corpus.table[[*COLUMNS, "corpus"]] for corpus in corpora], ignore_index=True),
            pd.concat([corpus.faults for corpus in corpora], ignore_index=True),
            "; ".join(dict.fromkeys(corpus.licence for corpus in corpora)),
            any(corpus.synthetic for corpus in corpora),
            corpora,
        )


def _read(name: str, reader: CorpusReader) -> Corpus:
    try:
        corpus = reader.read()
    except InputError as error:  # a corpus by itself has one folder, which needs no name
        raise InputError(str(error).replace("--data_folder", f"--{name}_folder")) from error
    marked = {column: f"{name}-" + corpus.table[column] for column in ("id", "speaker")}
    return replace(corpus, name=name, table=corpus.table.assign(**marked, corpus=name))
