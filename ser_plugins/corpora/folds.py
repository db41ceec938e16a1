"""Cross-validation by speaker: no speaker is in two parts of a fold. By utterance, as a control: speakers are."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from ser_plugins.corpora.corpus import Corpus
from ser_plugins.errors import InputError
from ser_plugins.files import atomic_write

PARTS = ("train", "valid", "test")
SPLITS = ("speaker", "utterance")


def blocks(corpus: Corpus, n_folds: int) -> dict[str, int]:
    """Number the block of each speaker, from 1.

    Speakers in native order are cut into N consecutive blocks, block k (from 0) from ⌊k·n/N⌋ to ⌊(k+1)·n/N⌋,
    so that sizes differ by one at most. A column ``fold`` of the corpus' own goes before. Block k of a merged corpus is
    block k of each that it was merged from.

    Raises
    ------
    InputError
        If there are fewer than three blocks or fewer speakers than blocks, or a speaker is in two folds of the
        corpus' own.
    """
    if n_folds < len(PARTS):
        raise InputError(f"--n_folds {n_folds} is too few; training, validation and test need 3")
    if corpus.corpora:
        return {speaker: block for one in corpus.corpora for speaker, block in blocks(one, n_folds).items()}
    if "fold" in corpus.table.columns:
        return _own_blocks(corpus, n_folds)
    speakers = corpus.speakers
    if len(speakers) < n_folds:
        remedy = f"give --n_folds {len(speakers)}" if len(speakers) >= len(PARTS) else "3 speakers are the fewest"
        raise InputError(
            f"corpus {corpus.name} has {len(speakers)} speaker(s), too few for {n_folds} folds by speaker; {remedy}"
        )
    edges = [k * len(speakers) // n_folds for k in range(n_folds + 1)]
    return {speaker: k + 1 for k in range(n_folds) for speaker in speakers[edges[k] : edges[k + 1]]}


def _own_blocks(corpus: Corpus, n_folds: int) -> dict[str, int]:
    table = corpus.table[["speaker"]].assign(fold=pd.to_numeric(corpus.table["fold"], errors="coerce"))
    unnumbered = table["speaker"][table["fold"].isna()]
    if not unnumbered.empty:
        raise InputError(f"corpus {corpus.name}: speaker {unnumbered.iloc[0]} has no number as fold; fill it in")
    pairs = table.drop_duplicates()
    twice = pairs["speaker"][pairs["speaker"].duplicated()]
    if not twice.empty:
        raise InputError(f"corpus {corpus.name}: speaker {twice.iloc[0]} is in two folds; keep each speaker in one")
    numbers = set(pairs["fold"])
    if numbers != set(range(1, n_folds + 1)):
        raise InputError(
            f"corpus {corpus.name}: its folds are {sorted(numbers, key=str)}, not 1 to {n_folds}; "
            f"number them from 1 and give --n_folds {len(numbers)}"
        )
    return {str(speaker): int(fold) for speaker, fold in pairs.itertuples(index=False)}


def divide(corpus: Corpus, n_folds: int, split: str = "speaker") -> pd.Series:
    """Number the block of each utterance, from 1.

    Parameters
    ----------
    corpus : Corpus
        The corpus.
    n_folds : int
        Number of blocks.
    split : {"speaker", "utterance"}
        What is kept together: a speaker (see `blocks`), or nothing. ``utterance`` divides each emotion at random, the
        same way each time. It is a control: accuracies under it are not of unheard speakers.

    Raises
    ------
    InputError
        If the corpus cannot be divided so, or there is no such split.
    """
    if split not in SPLITS:
        raise InputError(f"--split {split}: give {' or '.join(SPLITS)}")
    if split == "speaker":
        return corpus.table["speaker"].map(blocks(corpus, n_folds))
    counts = corpus.table["emotion"].value_counts()
    if not len(PARTS) <= n_folds <= counts.min():
        raise InputError(
            f"--n_folds {n_folds}: give {len(PARTS)} to {counts.min()}, the number of utterances of {counts.idxmin()}"
        )
    from sklearn.model_selection import StratifiedKFold  # noqa: PLC0415 — a control alone needs it

    block = pd.Series(0, index=corpus.table.index)
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=0).split(block, corpus.table["emotion"])
    for number, (_, rows) in enumerate(folds, 1):
        block.iloc[rows] = number
    return block


def fold_parts(corpus: Corpus, fold: int, n_folds: int = 10, split: str = "speaker") -> dict[str, pd.DataFrame]:
    """Divide a corpus: test is block ``fold``, validation the next one (the first after the last), training the rest.

    Parameters
    ----------
    corpus : Corpus
        The corpus.
    fold : int
        From 1 to ``n_folds``.
    n_folds : int
        Number of blocks.
    split : {"speaker", "utterance"}
        See `divide`.

    Returns
    -------
    dict of str to pandas.DataFrame
        The rows of ``train``, ``valid`` and ``test``.

    Raises
    ------
    InputError
        If there is no such fold, the corpus cannot be divided so, or it has one emotion only.
    """
    if len(corpus.labels) < 2:
        known = f"its only emotion is {corpus.labels[0]!r}" if corpus.labels else "it has no emotions"
        raise InputError(f"corpus {corpus.name}: {known}; add utterances of another")
    if not 1 <= fold <= n_folds:
        raise InputError(f"there is no fold {fold}; give a number from 1 to {n_folds}, or all")
    block = divide(corpus, n_folds, split)
    valid = valid_block(fold, n_folds)
    masks = {"train": ~block.isin([fold, valid]), "valid": block == valid, "test": block == fold}
    parts = {name: corpus.table[mask].reset_index(drop=True) for name, mask in masks.items()}
    speakers = [set(parts[name]["speaker"]) for name in PARTS]
    if split == "speaker" and len(set().union(*speakers)) != sum(map(len, speakers)):
        raise AssertionError(f"corpus {corpus.name}, fold {fold}: a speaker is in two parts")
    return parts


def folds_table(corpus: Corpus, n_folds: int = 10, split: str = "speaker") -> bytes:
    """Give ``id, speaker, emotion, block`` of all utterances as CSV: fold k tests block k and validates on the next."""
    table = corpus.table[["id", "speaker", "emotion"]].assign(block=divide(corpus, n_folds, split))
    return table.to_csv(index=False, lineterminator="\n").encode()


def write_folds(corpus: Corpus, path: Path, n_folds: int = 10, split: str = "speaker") -> str:
    """Write `folds_table`, and its SHA-256 in a second file; return the SHA-256."""
    content = folds_table(corpus, n_folds, split)
    checksum = hashlib.sha256(content).hexdigest()
    atomic_write(path, content)
    atomic_write(path.with_name(f"{path.name}.sha256"), f"{checksum}  {path.name}\n")
    return checksum


def training_ids(path: Path, fold: int) -> set[str]:
    """Read from a ``folds.csv`` what is trained on in a fold."""
    table = pd.read_csv(path, dtype={"id": str}, keep_default_na=False)
    held_out = [fold, valid_block(fold, int(table["block"].max()))]
    return set(table["id"][~table["block"].isin(held_out)])


def valid_block(fold: int, n_folds: int) -> int:
    """Return the block that a fold validates on: the next one, the first after the last."""
    return fold % n_folds + 1
