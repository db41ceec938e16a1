"""Predictions of a system, read from files and checked against a corpus."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ser_plugins.errors import InputError
from ser_plugins.evaluation.files import SUFFIXES, fold_numbers, named, read_table, suffix_of
from ser_plugins.evaluation.protocol import Reference
from ser_plugins.model_folder.lineage import LINEAGE, heard_speakers, read_trainings

FOLD_NAME = re.compile(r"fold_?(\d+)")


@dataclass(frozen=True)
class System:
    """Predictions of all utterances of a corpus, in its order.

    Attributes
    ----------
    name : str
        Name of the system.
    table : pandas.DataFrame
        Table of the reference with ``predicted``.
    probabilities : numpy.ndarray or None
        Probability of each emotion [N, C], in the order of the labels.
    """

    name: str
    table: pd.DataFrame
    probabilities: NDArray[np.float64] | None


def read_system(sources: Sequence[Path], reference: Reference, name: str | None = None) -> System:
    """Read the predictions of a system and check them against a corpus.

    A table has ``id``, or ``path``, whose stem is the id, and ``predicted`` or one probability per emotion, or both.
    The columns of the probabilities have the names of the emotions, or these after ``p_``. Logarithms are understood.

    Parameters
    ----------
    sources : sequence of pathlib.Path
        Tables, CSV, Parquet or JSON Lines: one, or one per fold. A folder stands for its ``predictions`` table, or for
        those of its folders ``fold1``, ``fold2`` …
    reference : Reference
        The corpus.
    name : str, optional
        Name of the system; by default that of the first source.

    Raises
    ------
    InputError
        If an id is missing, unknown or doubled, a prediction is unusable, or a model predicts speakers that it was
        trained on.
    """
    files = [file for source in sources for file in _tables(source)]
    if doubled := {file for file in files if files.count(file) > 1}:
        raise InputError(f"{named(sorted(doubled))} is given twice; give it once")
    parts = [_read(file, reference) for file in files]
    if len({part.shape[1] for part in parts}) > 1:
        raise InputError(f"only some of {named(files)} have probabilities; give them in all files or in none")
    table = pd.concat(parts, ignore_index=True)
    where = str(sources[0]) if len(files) == 1 else f"{sources[0]} … ({len(files)} files)"
    _check_ids(table["id"], reference, where)
    table = table.set_index("id").loc[reference.table["id"]].reset_index(drop=True)
    whole = reference.table.reset_index(drop=True).assign(predicted=table["predicted"])
    probabilities = table[list(reference.labels)].to_numpy(np.float64) if table.shape[1] > 1 else None
    return System(name or str(sources[0]), whole, probabilities)


def _tables(source: Path) -> list[Path]:
    """List the tables that a source stands for, in order of the folds."""
    if not source.is_dir():
        return [source]
    for pattern in ("predictions.*", "fold*/predictions.*"):
        found = [file for file in source.glob(pattern) if suffix_of(file) in SUFFIXES]
        if found:
            return sorted(found, key=lambda file: (_fold_of(file) or 0, file))
    raise InputError(f"{source} has no predictions.csv and no fold1/predictions.csv; give the tables")


def _read(file: Path, reference: Reference) -> pd.DataFrame:
    """Read one table and check its fold and model: ``id``, ``predicted``, and the probabilities if it has them."""
    table = read_table(file)
    if "id" not in table and "path" in table:  # a table of ser-plugins predict: its emotion is the predicted one
        table = table.assign(id=[Path(path).stem for path in table["path"].astype(str)])
        table = table if "predicted" in table else table.rename(columns={"emotion": "predicted"})
    if "id" not in table:
        raise InputError(f"{file} lacks the column id; it has {', '.join(table.columns)}")
    if table["id"].isna().any():
        raise InputError(f"{file}: row {int(table['id'].isna().argmax()) + 1} after the header has no id; fill it in")
    table = table.assign(id=table["id"].astype(str))
    _check_known(file, table["id"], reference)
    _check_fold(file, table, reference)
    _check_lineage(file, table, reference)
    probabilities = _probabilities(file, table, reference)
    if "predicted" in table:
        predicted = _predicted(file, table, reference)
    elif probabilities is not None:
        predicted = probabilities.idxmax(axis=1).astype(str)
    else:
        labels = ", ".join(reference.labels)
        there = ", ".join(table.columns)
        raise InputError(
            f"{file} has no column predicted, and not one for each of {labels}; add either: it has {there}"
        )
    found = pd.DataFrame({"id": table["id"], "predicted": predicted})
    return found if probabilities is None else pd.concat([found, probabilities], axis=1)


def _predicted(file: Path, table: pd.DataFrame, reference: Reference) -> pd.Series[str]:
    strange = ~table["predicted"].isin(reference.labels)
    if strange.any():
        row = table[strange].iloc[0]
        what = "nothing" if pd.isna(row["predicted"]) else repr(row["predicted"])
        labels = ", ".join(reference.labels)
        raise InputError(f"{file}: {row['id']} is predicted as {what}; write one of {labels}")
    return table["predicted"].astype(str)


def _probabilities(file: Path, table: pd.DataFrame, reference: Reference) -> pd.DataFrame | None:
    """Return the probabilities of the emotions, which sum to one in each row."""
    for prefix in ("", "p_"):
        there = [label for label in reference.labels if f"{prefix}{label}" in table]
        if there:
            break
    else:
        return None
    if missing := [label for label in reference.labels if label not in there]:
        raise InputError(f"{file} has a probability of {there[0]}, but none of {', '.join(missing)}; give all or none")
    found = table[[f"{prefix}{label}" for label in reference.labels]]
    found = found.apply(pd.to_numeric, errors="coerce").set_axis(list(reference.labels), axis=1).astype(float)
    values = found.to_numpy()
    if np.nanmin(values, initial=0.0) < 0 and np.nanmax(values, initial=-np.inf) <= 0:
        values = np.exp(values)
    sums = values.sum(axis=1)
    strange = ~(np.isfinite(sums) & (np.abs(sums - 1) < 0.02) & (values >= 0).all(axis=1))
    if strange.any():
        raise InputError(
            f"{file}: the probabilities of {named(table['id'][strange])} are not numbers from 0 to 1 that sum to 1"
            f" over {', '.join(reference.labels)}; correct them"
        )
    return pd.DataFrame(values / sums[:, None], columns=found.columns, index=found.index)


def _check_known(file: Path, ids: pd.Series[str], reference: Reference) -> None:
    known = dict.fromkeys(reference.table["id"])  # isin of pandas takes eight times as long
    unknown = [one for one in ids if one not in known]
    if unknown:
        like = next(iter(known))
        raise InputError(
            f"{file}: {len(unknown)} ids are not in {reference.name}: {named(unknown)}; one looks like {like}"
        )


def _check_ids(ids: pd.Series[str], reference: Reference, where: str) -> None:
    if (doubled := ids.duplicated()).any():
        raise InputError(f"{where}: {int(doubled.sum())} ids stand twice: {named(ids[doubled])}; keep one row of each")
    missing = reference.table["id"][~reference.table["id"].isin(ids)]
    if len(missing):
        raise InputError(
            f"{where}: {len(missing)} of {len(reference.table)} utterances have no prediction: {named(missing)}; "
            "predict them"
        )


def _fold_of(file: Path) -> int | None:
    """Return the fold that the name of a file or of its folder says."""
    for name in (file.name.split(".")[0], file.parent.name):
        if found := FOLD_NAME.fullmatch(name):
            return int(found[1])
    return None


def _check_fold(file: Path, table: pd.DataFrame, reference: Reference) -> None:
    """Refuse utterances of another block than that of the fold, which a column or the name of the file says."""
    fold = _fold_of(file)
    if "block" not in reference.table or ("fold" not in table and fold is None):
        return
    blocks = table["id"].map(reference.table.set_index("id")["block"])
    folds = fold_numbers(file, table["id"], table["fold"]) if "fold" in table else pd.Series(fold, table.index)
    outside = folds != blocks
    if outside.any():
        ids = table["id"][outside]
        raise InputError(
            f"{file}: {len(ids)} utterances are not of the block that their fold tests: {named(ids)}; the model of "
            f"fold {folds[outside].iloc[0]:g} has seen the speaker of {ids.iloc[0]}, which fold "
            f"{blocks[outside].iloc[0]:g} tests"
        )


def _check_lineage(file: Path, table: pd.DataFrame, reference: Reference) -> None:
    """Refuse utterances of training speakers, by the ``lineage.json`` in the folder of the file or in ``model/``."""
    speakers = table["id"].map(reference.table.set_index("id")["speaker"])
    for record in (file.parent / LINEAGE, file.parent / "model" / LINEAGE):
        heard = speakers.isin(heard_speakers(read_trainings(record), reference.corpus, speakers.unique()))
        if heard.any():
            raise InputError(
                f"{file}: {int(heard.sum())} utterances are predicted by a model that was trained on their speaker: "
                f"{named(table['id'][heard])} ({record}); predict them with a model of another fold"
            )
