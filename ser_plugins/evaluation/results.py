"""Finished folds, read from disk: their metrics, predictions and embeddings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ser_plugins.errors import InputError

METRICS = "metrics.json"
FOLD = re.compile(r"fold\d+")  # not fold1_old, a copy
PREDICTIONS = ["id", "speaker", "emotion", "predicted"]
REMEDY = "delete its folder and train again"


class _Metrics(dict[str, Any]):
    """The content of a ``metrics.json``; a missing key is an `InputError` that names it."""

    def __init__(self, file: Path, found: Mapping[str, Any]) -> None:
        super().__init__(found)
        self.file = file

    def __missing__(self, key: str) -> Any:
        raise InputError(f"{self.file} has no {key}; {REMEDY}")


@dataclass(frozen=True)
class Run:
    """A fold that was trained and tested.

    Attributes
    ----------
    folder : pathlib.Path
        Its folder.
    metrics : mapping
        The content of its ``metrics.json``.
    part : str, optional
        Name of one of several merged corpora, if the run is restricted to it.
    """

    folder: Path
    metrics: Mapping[str, Any]
    part: str | None = None

    @property
    def fold(self) -> int:
        """Number of the fold."""
        return int(self.metrics["fold"])

    @property
    def normalizes_by_speaker(self) -> bool:
        """Whether speaker normalisation used which test utterances are of one speaker (S7, S8)."""
        old = "features" if self.metrics.get("told_speakers") else "none"  # the key of earlier versions
        return bool(self.metrics.get("speaker_normalization", old) != "none")

    @property
    def overlaps(self) -> bool:
        """Whether utterances were divided at random: the training part has utterances of the test speakers."""
        return bool(self.metrics.get("split", "speaker") != "speaker")

    def scores(self) -> pd.DataFrame:
        """Read ``predictions.csv``: test utterances, true and predicted emotions, log-probability of each class."""
        file = next(iter(self.folder.glob("predictions.csv*")), self.folder / "predictions.csv")  # a record's has .gz
        try:
            table = pd.read_csv(file, dtype=dict.fromkeys([*PREDICTIONS, "corpus"], str), keep_default_na=False)
        except (OSError, ValueError) as error:
            raise InputError(f"{file} cannot be read; {REMEDY}") from error
        tested = len(table) if self.part else self.metrics.get("n_test", len(table))
        if not {*PREDICTIONS} <= {*table.columns} or len(table) != tested:
            raise InputError(f"{file} is incomplete; {REMEDY}")
        return table

    def predictions(self) -> pd.DataFrame:
        """Read ``id``, ``speaker``, ``emotion`` and ``predicted`` of the test utterances."""
        table = self.scores()
        return table.loc[table["corpus"] == self.part if self.part else slice(None), PREDICTIONS]

    def restrict(self, part: str) -> Run:
        """Return the run restricted to one of several merged corpora."""
        name = f"{part} (of {self.metrics['corpus']})"
        return Run(self.folder, {**self.metrics, **self.metrics["corpora"][part], "corpus": name}, part)

    @property
    def embeddings_file(self) -> Path:
        """Path of the embeddings of the test utterances; runs of earlier versions have none."""
        return self.folder / "embeddings.npz"

    def embeddings(self) -> NDArray[np.float32]:
        """Read the embeddings [N, E] in the order of the predictions."""
        try:
            with np.load(self.embeddings_file) as file:
                found: NDArray[np.float32] = file["embedding"]
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise InputError(f"{self.embeddings_file} cannot be read; {REMEDY}") from error
        return found


def read_runs(folder: Path) -> tuple[Run, ...]:
    """Read the finished folds in a folder, in order of their numbers."""
    runs = [Run(fold, read_metrics(fold)) for fold in finished_folds(folder)]
    for run in runs:
        if run.folder.name != f"fold{run.fold}":
            raise InputError(f"{run.folder} holds fold {run.fold}; move the copy elsewhere")
    return tuple(sorted(runs, key=lambda run: run.fold))


def finished_folds(folder: Path, where: str = "fold*") -> list[Path]:
    """List the folders of the finished folds in a folder."""
    return [file.parent for file in folder.glob(f"{where}/{METRICS}") if FOLD.fullmatch(file.parent.name)]


def read_metrics(run: Path) -> Mapping[str, Any]:
    """Read the ``metrics.json`` of a finished run."""
    file = run / METRICS
    try:
        return _Metrics(file, dict(json.loads(file.read_text(encoding="utf-8"))))
    except (OSError, TypeError, ValueError) as error:
        raise InputError(f"{file} cannot be read; {REMEDY}") from error
