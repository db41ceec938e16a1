"""Ensembles: the mean of the probabilities of several runs for the same utterances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ser_plugins.errors import InputError
from ser_plugins.evaluation.intervals import accuracy_interval
from ser_plugins.evaluation.measures import measure
from ser_plugins.evaluation.results import Run
from ser_plugins.experiments.layout import Cell, Table, number
from ser_plugins.experiments.published import SPEAKER_NOTE, SPREAD
from ser_plugins.experiments.runs import Experiment

NOTE = (
    "In %, on the folds that all have. The ensemble takes the mean of all probabilities, each of equal weight; it "
    "costs as much as its members together, and so stands apart from single systems."
)


def average(runs: Sequence[Run]) -> pd.DataFrame:
    """Return ``id``, ``speaker``, ``emotion``, and the prediction of the mean of the runs' probabilities.

    Raises
    ------
    InputError
        If the runs differ in test utterances or emotions, or are on merged corpora.
    """
    labels = runs[0].metrics["labels"]
    if "corpora" in runs[0].metrics:
        raise InputError(f"{runs[0].folder} is on merged corpora; give runs on a single one")
    tables = [run.scores() for run in runs]
    first = tables[0]
    for run, table in zip(runs, tables, strict=True):
        if set(table["id"]) != set(first["id"]) or run.metrics["labels"] != labels:
            raise InputError(
                f"{run.folder} tested other utterances than {runs[0].folder}; give runs of the same corpus"
            )
    logs = [table.set_index("id").loc[first["id"], labels].to_numpy() for table in tables]
    found = np.exp(logs).mean(0).argmax(1)
    return first[["id", "speaker", "emotion"]].assign(predicted=[labels[i] for i in found])


def shared_runs(experiments: Sequence[Experiment]) -> list[list[Run]]:
    """Return the runs of each experiment on the folds that all of them have, in the order of the folds."""
    by_fold = [{run.fold: run for run in one.runs} for one in experiments]
    folds = sorted(set.intersection(*map(set, by_fold)))
    return [[runs[fold] for fold in folds] for runs in by_fold]


def ensemble_table(experiments: Sequence[Experiment]) -> Table:
    """Tabulate the ensemble and each of its members on the folds that all of them have.

    Raises
    ------
    InputError
        If there is no such fold.
    """
    members = shared_runs(experiments)
    if not members[0]:
        raise InputError("no fold is finished in all of the experiments; give experiments that share one")
    rows = [
        _row(f"{one.strategy}, seed {one.seed}", [run.predictions() for run in runs], one)
        for one, runs in zip(experiments, members, strict=True)
    ]
    together = [average(runs) for runs in zip(*members, strict=True)]
    rows.append(_row("all of them", together, experiments[0]))
    title = f"Ensemble: {experiments[0].corpus_title}, folds {', '.join(str(run.fold) for run in members[0])}"
    normalised = dict.fromkeys(one.strategy for one in experiments if one.normalizes_by_speaker)
    note = f"{NOTE} {', '.join(normalised)}: {SPEAKER_NOTE}." if normalised else NOTE
    return Table(title, ["", *SPREAD, "95 % interval", "UAR", "macro F1"], rows, note)


def measure_folds(frames: Sequence[pd.DataFrame], labels: Sequence[str]) -> dict[str, float]:
    """Measure predictions of several folds: mean and deviation, ``low`` and ``high`` of accuracy; UAR and macro F1."""
    measured = pd.DataFrame([measure(frame, labels) for frame in frames])
    low, high = accuracy_interval(frames)
    spread = {one: float(measured["accuracy"].agg(one)) for one in SPREAD}
    return {**spread, "low": low, "high": high, **{name: float(measured[name].mean()) for name in ("uar", "macro_f1")}}


def _row(name: str, frames: Sequence[pd.DataFrame], experiment: Experiment) -> list[Cell]:
    found = measure_folds(frames, experiment.runs[0].metrics["labels"])
    interval = f"{number(found['low'], 100)}–{number(found['high'], 100)}"
    rest = (number(found[one], 100) for one in ("uar", "macro_f1"))
    return [Cell(text) for text in (name, *(number(found[one], 100) for one in SPREAD), interval, *rest)]
