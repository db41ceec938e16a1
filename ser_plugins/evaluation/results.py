"""Finished runs, read from disk."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ser_plugins.errors import InputError

METRICS = "metrics.json"
FOLD = re.compile(r"fold\d+")  # a copy beside it, as fold1_old, is none
PREDICTIONS = ["id", "speaker", "emotion", "predicted"]
REMEDY = "delete its folder, and train anew"
# What a sweep trained lies in sweeps/<key>/<value>/: SpeechBrain's command line takes no path with an equals sign.
NUMBER = r"[-+]?\d*\.?\d+(?:e[-+]?\d+)?"
SETTING = re.compile(rf"/sweeps/(\w+)/({NUMBER})/")


class _Metrics(dict[str, Any]):
    """What is read of a ``metrics.json``; what it lacks is told by name."""

    def __init__(self, file: Path, found: Mapping[str, Any]) -> None:
        super().__init__(found)
        self.file = file

    def __missing__(self, key: str) -> Any:
        raise InputError(f"{self.file} tells no {key}; {REMEDY}")


@dataclass(frozen=True)
class Run:
    """A fold that was trained and tested.

    Attributes
    ----------
    folder : pathlib.Path
        Where it is.
    metrics : mapping
        Its ``metrics.json``.
    part : str, optional
        The corpus of a merged one that this is of.
    """

    folder: Path
    metrics: Mapping[str, Any]
    part: str | None = None

    @property
    def fold(self) -> int:
        """Number of the fold."""
        return int(self.metrics["fold"])

    def scores(self) -> pd.DataFrame:
        """All of ``predictions.csv``: what was tested, what is predicted, and the log-probability of each class."""
        file = self.folder / "predictions.csv"
        try:
            table = pd.read_csv(file, dtype=dict.fromkeys([*PREDICTIONS, "corpus"], str), keep_default_na=False)
        except (OSError, ValueError) as error:
            raise InputError(f"{file} cannot be read; {REMEDY}") from error
        tested = len(table) if self.part else self.metrics.get("n_test", len(table))
        if not {*PREDICTIONS} <= {*table.columns} or len(table) != tested:
            raise InputError(f"{file} is not whole; {REMEDY}")
        return table

    def predictions(self) -> pd.DataFrame:
        """``id``, ``speaker``, ``emotion`` and ``predicted`` of the test part."""
        table = self.scores()
        return table.loc[table["corpus"] == self.part if self.part else slice(None), PREDICTIONS]

    def of(self, part: str) -> Run:
        """Give the run as one on a single corpus of those that were merged."""
        name = f"{part} (of {self.metrics['corpus']})"
        return Run(self.folder, {**self.metrics, **self.metrics["corpora"][part], "corpus": name}, part)

    @property
    def embeddings_file(self) -> Path:
        """Embeddings of the test part; runs of before they were kept have none."""
        return self.folder / "embeddings.npz"

    def embeddings(self) -> NDArray[np.float32]:
        """Embeddings [N, E] in the order of the predictions."""
        try:
            with np.load(self.embeddings_file) as file:
                found: NDArray[np.float32] = file["embedding"]
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise InputError(f"{self.embeddings_file} cannot be read; {REMEDY}") from error
        return found


@dataclass(frozen=True)
class Experiment:
    """Folds of one strategy on one corpus with one seed.

    Attributes
    ----------
    folder : pathlib.Path
        Where the folds are.
    runs : tuple of Run
        The finished ones, by fold.
    setting : tuple of str and float, optional
        Key and value, where a sweep varied one.
    """

    folder: Path
    runs: tuple[Run, ...]
    setting: tuple[str, float] | None = None

    @property
    def strategy(self) -> str:
        """The strategy's name."""
        return str(self.runs[0].metrics["strategy"])

    @property
    def corpus(self) -> str:
        """The corpus' name."""
        return str(self.runs[0].metrics["corpus"])

    @property
    def seed(self) -> int:
        """The seed."""
        return int(self.runs[0].metrics["seed"])

    @property
    def synthetic(self) -> bool:
        """True where the audio was made by a program."""
        return bool(self.runs[0].metrics["synthetic"])

    @property
    def told_speakers(self) -> bool:
        """True where it was told which utterances are of one speaker; runs of before have no such key."""
        return bool(self.runs[0].metrics.get("told_speakers", False))

    def corpora(self) -> list[Experiment]:
        """Give one experiment for each corpus that was merged, none where none were."""
        names = self.runs[0].metrics.get("corpora", {})
        return [replace(self, runs=tuple(run.of(name) for run in self.runs)) for name in names]

    @property
    def corpus_title(self) -> str:
        """The corpus' name as titles have it."""
        return f"{self.corpus} (synthetic audio)" if self.synthetic else self.corpus


def read_experiments(results: Path) -> list[Experiment]:
    """Read all finished folds below a folder, by corpus, strategy, seed and what a sweep varied.

    Raises
    ------
    InputError
        If there are none.

    Example
    -------
    >>> results = getfixture("tmp_path")
    >>> fold = results / "S1" / "demo" / "1" / "fold1"
    >>> fold.mkdir(parents=True)
    >>> metrics = {"strategy": "S1", "corpus": "demo", "seed": 1, "fold": 1, "synthetic": True}
    >>> _ = (fold / "metrics.json").write_text(json.dumps(metrics))
    >>> [(one.strategy, one.corpus_title, [run.fold for run in one.runs]) for one in read_experiments(results)]
    [('S1', 'demo (synthetic audio)', [1])]
    """
    folders = {fold.parent for fold in finished_folds(results, "**/fold*")}
    if not folders:
        raise InputError(f"{results} holds no finished fold; give the folder of the results")
    found = [Experiment(folder, read_runs(folder), _setting(folder)) for folder in folders]
    return sorted(found, key=lambda one: (one.corpus, one.strategy, one.seed, one.setting or (), one.folder))


def read_runs(folder: Path) -> tuple[Run, ...]:
    """Read the finished folds of an experiment, in order."""
    runs = [Run(fold, read_metrics(fold)) for fold in finished_folds(folder)]
    for run in runs:
        if run.folder.name != f"fold{run.fold}":
            raise InputError(f"{run.folder} holds fold {run.fold}; give a copy another place")
    return tuple(sorted(runs, key=lambda run: run.fold))


def finished_folds(folder: Path, where: str = "fold*") -> list[Path]:
    """List the folders of the finished folds below one."""
    return [file.parent for file in folder.glob(f"{where}/{METRICS}") if FOLD.fullmatch(file.parent.name)]


def read_metrics(run: Path) -> Mapping[str, Any]:
    """Read what a finished run tells of itself."""
    file = run / METRICS
    try:
        return _Metrics(file, dict(json.loads(file.read_text(encoding="utf-8"))))
    except (OSError, TypeError, ValueError) as error:
        raise InputError(f"{file} cannot be read; {REMEDY}") from error


def _setting(folder: Path) -> tuple[str, float] | None:
    found = SETTING.search(folder.resolve().as_posix())
    return (found[1], float(found[2])) if found else None
