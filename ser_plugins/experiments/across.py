"""Results across corpora: the models of one corpus predict another one, over the emotions that both have."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ser_plugins.errors import InputError
from ser_plugins.evaluation.evaluate import encode, with_intervals
from ser_plugins.evaluation.files import read_table
from ser_plugins.evaluation.measures import confusions
from ser_plugins.evaluation.page import measure
from ser_plugins.evaluation.protocol import UTTERANCES, Reference, reference
from ser_plugins.experiments.layout import ABSENT
from ser_plugins.experiments.runs import Experiment
from ser_plugins.files import atomic_write
from ser_plugins.inference.corpus import RECORDED, find_corpus, predict_corpus

COMMON = tuple(one for one in UTTERANCES["cremad"][0] if one in UTTERANCES["ravdess"][0])
NOTE = (
    f"UAR in percent over the emotions that both corpora have, {', '.join(COMMON)}, with 95 % bootstrap intervals over "
    "test actors. The probabilities are renormalised over these emotions. Within a corpus, the model of each fold "
    "predicts its test actors. In the other corpus, the model of fold k predicts the block k of actors, so one model "
    "predicts each utterance. Fewer than ten models are assigned to the blocks in turn. "
    "`python recipes/experiments.py across` writes these predictions. `builtin:emotions`, a Probe, and "
    "`builtin:emotions-small`, an S6, were trained on 71 actors of CREMA-D. They predict the ten actors that neither "
    "training nor validation used."
)


def predict_across(experiments: Sequence[Experiment], folders: Mapping[str, Path], records: Path) -> list[Path]:
    """Predict each other corpus by the models of each experiment, and record the predictions.

    Parameters
    ----------
    experiments : sequence of Experiment
        Experiments with their ``model/`` folders. With fewer than ten folds, their models take turns over the blocks.
    folders : mapping
        Folder of the audio by the name of the corpus.
    records : pathlib.Path
        Folder of all records.

    Returns
    -------
    list of pathlib.Path
        The records, as `record_file` names them: tables of ``id`` and ``predicted``.

    Raises
    ------
    InputError
        If an experiment is of another corpus or divided by utterance, or the audio of a corpus is incomplete.
    """
    for one in experiments:
        if one.overlaps:
            raise InputError(f"{one.folder} is divided by utterance; give experiments with folds of disjoint speakers")
        if one.corpus not in folders:
            raise InputError(f"{one.folder} is of {one.corpus}; give experiments of {' or '.join(folders)}")
    written = []
    for one in experiments:
        for corpus, folder in folders.items():
            if corpus == one.corpus:
                continue
            audio, missing = find_corpus(corpus, folder)
            if missing:
                raise InputError(f"{missing[0].rstrip('.')}; give the whole corpus")
            text = _predict_blocks(one, audio).to_csv(index=False, lineterminator="\n")
            written.append(record_file(one, corpus, records))
            atomic_write(written[-1], gzip.compress(text.encode(), mtime=0))  # the same bytes each time
    return written


def _predict_blocks(one: Experiment, corpus: Reference) -> pd.DataFrame:
    """Predict each block of a corpus by one of the models in turn; return ``id`` and ``predicted``."""
    tables = []
    turns = (corpus.table["block"] - 1) % len(one.runs)
    for turn, run in enumerate(one.runs):
        part = corpus.table[turns == turn]
        found = predict_corpus([run.folder / "model"], Reference(corpus.name, corpus.labels, part))
        tables.append(found.systems[RECORDED].table[["id", "predicted"]])
    return pd.concat(tables).sort_values("id")


def record_file(one: Experiment, corpus: str, records: Path) -> Path:
    """Return the record of an experiment's predictions of another corpus."""
    return records / one.strategy / "across" / str(one.seed) / f"{one.corpus}-{corpus}.csv.gz"


def across_cells(one: Experiment, records: Path) -> list[str]:
    """Return an experiment's number of folds and its UAR on each corpus; nothing where it predicted no other corpus."""
    files = {name: record_file(one, name, records) for name in UTTERANCES}
    found = {name: with_truth(read_table(file), name) for name, file in files.items() if file.is_file()}
    if not found:
        return []
    found[one.corpus] = within(one)
    return [str(len(one.runs)), *(uar(found[name]) if name in found else ABSENT for name in UTTERANCES)]


def package_cells(records: Path) -> list[list[str]]:
    """Return the cells of each model in the package, trained on CREMA-D; see `across_cells`."""
    rows = []
    for folder in sorted((records / "models").glob("*")):
        tables = [read_table(folder / f"{name}.csv.gz") for name in UTTERANCES]
        cells = [uar(table[table["emotion"].isin(COMMON)]) for table in tables]
        rows.append([f"`builtin:{folder.name}`", ABSENT, "CREMA-D", "1", *cells])
    return rows


def within(one: Experiment) -> pd.DataFrame:
    """Return the test utterances of all folds that have a common emotion, ``predicted`` over these emotions alone."""
    scores = pd.concat([run.scores() for run in one.runs], ignore_index=True)
    scores = scores[scores["emotion"].isin(COMMON)]
    best = scores[list(COMMON)].idxmax(axis=1)  # the order of the renormalised ones
    return scores[["id", "speaker", "emotion"]].assign(predicted=best)


def with_truth(predictions: pd.DataFrame, corpus: str) -> pd.DataFrame:
    """Return all utterances of a corpus that have a common emotion, with their predictions.

    Raises
    ------
    InputError
        If utterances are missing.
    """
    table = reference(corpus).table
    table = table[table["emotion"].isin(COMMON)].merge(predictions, "left", "id")
    if (missing := table["predicted"].isna()).any():
        raise InputError(f"{corpus}: {int(missing.sum())} utterances have no prediction; run across again")
    return table


def uar(table: pd.DataFrame) -> str:
    """Return the UAR of utterances with ``speaker``, ``emotion`` and ``predicted``, as text with its interval."""
    true, predicted = (encode(table[name], list(COMMON)) for name in ("emotion", "predicted"))
    return measure(with_intervals(confusions(true, predicted, pd.factorize(table["speaker"])[0], len(COMMON)))["uar"])
