"""What enrolment gains: accuracy on the rest of a speaker's clips, after some labelled clips of each emotion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from ser_plugins.errors import InputError
from ser_plugins.evaluation.intervals import percentiles, resample
from ser_plugins.evaluation.page import measure
from ser_plugins.evaluation.results import Run, read_metrics
from ser_plugins.experiments.runs import Experiment
from ser_plugins.files import atomic_write
from ser_plugins.inference.enrolment import STRENGTH, adapt_classifier
from ser_plugins.model_folder.plain import load_plain

CLIPS = (0, 1, 3, 5)
NOTE = (
    "Accuracy in percent after `ser-plugins enrol` with 0, 1, 3 or 5 labelled clips of each emotion of a test actor, "
    "at most half of the actor's clips of an emotion. It is measured on the same rest of the clips each time, and is "
    "the mean over five random choices and the actors. The 95 % interval resamples actors. "
    "`python recipes/experiments.py enrolment` writes the records."
)


@torch.no_grad()
def measure_enrolment(
    classifier: nn.Module,
    embeddings: NDArray[np.float32],
    targets: Sequence[int],
    speakers: Sequence[str],
    clips: Sequence[int] = CLIPS,
    repeats: int = 5,
    seed: int = 1,
    strength: float = STRENGTH,
) -> pd.DataFrame:
    """Measure a classifier after adaptation to each speaker.

    Of each emotion of a speaker, the largest number of ``clips`` is set aside at random, at most half of them. The
    first 0, 1, 3 … of these are the labelled clips. All numbers are measured on the same rest.

    Parameters
    ----------
    classifier : torch.nn.Module
        Trained classifier, on the CPU; see `adapt_classifier`.
    embeddings : numpy.ndarray
        [N, E], of speakers that it was not trained on.
    targets : sequence of int
        Class indices [N].
    speakers : sequence of str
        Speaker of each, [N].
    clips : sequence of int
        Numbers of labelled clips of each emotion.
    repeats : int
        Random choices of the clips per speaker.
    seed : int
        Seed of the choices.
    strength : float
        See `adapt_classifier`.

    Returns
    -------
    pandas.DataFrame
        One row per speaker, repeat and number: ``speaker``, ``repeat``, ``clips``, ``accuracy``, ``uar``, ``tested``.

    Example
    -------
    >>> from ser_plugins import SoftmaxClassifier
    >>> rng = np.random.default_rng(0)
    >>> inputs = rng.normal(size=(24, 4)).astype(np.float32)
    >>> found = measure_enrolment(SoftmaxClassifier(4, 2), inputs, [0, 1] * 12, ["ann"] * 24, repeats=1)
    >>> found["clips"].tolist(), found["tested"].unique().tolist()
    ([0, 1, 3, 5], [14])
    """
    rows = []
    labels, names = np.asarray(targets), np.asarray(speakers)
    for number, name in enumerate(dict.fromkeys(names.tolist())):
        own = np.flatnonzero(names == name)
        for repeat in range(repeats):
            order = np.random.default_rng([seed, repeat, number]).permutation(own)
            taken = {c: _first(order, labels, c, max(clips)) for c in clips}
            rest = np.setdiff1d(own, taken[max(clips)])
            for count, chosen in taken.items():
                adapted = adapt_classifier(classifier, embeddings[chosen], labels[chosen], strength)
                right = adapted(torch.from_numpy(embeddings[rest])).argmax(-1).numpy() == labels[rest]
                recalls = pd.Series(right).groupby(labels[rest]).mean()
                known = {"speaker": name, "repeat": repeat, "clips": count, "tested": len(rest)}
                rows.append({**known, "accuracy": right.mean(), "uar": recalls.mean()})
    return pd.DataFrame(rows)


def _first(order: NDArray[np.int64], labels: NDArray[np.int64], count: int, most: int) -> NDArray[np.int64]:
    """Return the first ``count`` of each label, of which at most half are taken."""
    found = []
    for label in np.unique(labels[order]):
        own = order[labels[order] == label]
        found.append(own[: min(count, most, len(own) // 2)])
    return np.concatenate(found)


def measure_folds(
    folders: Iterable[str | Path], clips: Sequence[int] = CLIPS, repeats: int = 5, strength: float = STRENGTH
) -> pd.DataFrame:
    """Measure enrolment on the test speakers of finished folds, by their models and stored embeddings.

    Parameters
    ----------
    folders : iterable of path
        Folders ``fold<N>`` of runs with a `SoftmaxClassifier` or `LogisticClassifier`, as S6.
    clips, repeats, strength
        As in `measure_enrolment`.

    Returns
    -------
    pandas.DataFrame
        The rows of `measure_enrolment`, after a column ``fold``.

    Raises
    ------
    InputError
        If no folder is given, a file is missing, or a classifier cannot be adapted.
    """
    found = []
    for folder in map(Path, folders):
        run = Run(folder, read_metrics(folder))
        model, table = load_plain(folder / "model", device="cpu"), run.predictions()
        labels = list(model.hparams.label_encoder.ind2lab.values())
        targets = [labels.index(one) for one in table["emotion"]]
        classifier, speakers = model.mods["classifier"], table["speaker"].tolist()
        rows = measure_enrolment(classifier, run.embeddings(), targets, speakers, clips, repeats, strength=strength)
        found.append(rows.assign(fold=run.fold))
    if not found:
        raise InputError("no fold is given; give folders fold<N> of a finished run")
    rows = pd.concat(found, ignore_index=True)
    return rows[["fold", *rows.columns.drop("fold")]]


def record_enrolment(one: Experiment, records: Path) -> Path:
    """Measure the enrolment of each test speaker of an experiment, and record the mean over the repeats."""
    rows = measure_folds([run.folder for run in one.runs])
    means = rows.groupby(["fold", "speaker", "clips"], as_index=False)[["accuracy", "uar", "tested"]].mean()
    file = record_file(one, records)
    atomic_write(file, means.to_csv(index=False, lineterminator="\n", float_format="%.4f"))
    return file


def record_file(one: Experiment, records: Path) -> Path:
    """Return the record of an experiment's enrolment."""
    return records / one.strategy / "enrolment" / str(one.seed) / f"{one.corpus}.csv"


def enrolment_cells(one: Experiment, records: Path) -> list[str]:
    """Return the accuracy after each number of clips, as text with its interval; nothing where none is recorded."""
    file = record_file(one, records)
    if not file.is_file():
        return []
    speakers = pd.read_csv(file, dtype={"speaker": str}).pivot(index="speaker", columns="clips", values="accuracy")
    cells = []
    for clips in CLIPS:
        values = speakers[clips].to_numpy()
        low, high = percentiles(resample(values) / len(values))
        cells.append(measure({"value": values.mean(), "low": low, "high": high}))
    return cells
