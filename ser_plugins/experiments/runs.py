"""Experiments, and the settings that a sweep varied, read from a folder of results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from ser_plugins.errors import InputError
from ser_plugins.evaluation.results import Run, finished_folds, read_runs

# A sweep is saved in sweeps/<key>/<value>/: SpeechBrain's command line accepts no path with an equals sign.
NUMBER = r"[-+]?\d*\.?\d+(?:e[-+]?\d+)?"
SETTING = re.compile(rf"/sweeps/(\w+)/({NUMBER})/")


@dataclass(frozen=True)
class Experiment:
    """The folds of one strategy on one corpus with one seed.

    Attributes
    ----------
    folder : pathlib.Path
        Folder of the folds.
    runs : tuple of Run
        The finished folds, in order.
    setting : tuple of str and float, optional
        The key that a sweep varied, and its value.
    """

    folder: Path
    runs: tuple[Run, ...]
    setting: tuple[str, float] | None = None

    @property
    def strategy(self) -> str:
        """Name of the strategy."""
        return str(self.runs[0].metrics["strategy"])

    @property
    def corpus(self) -> str:
        """Name of the corpus."""
        return str(self.runs[0].metrics["corpus"])

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return int(self.runs[0].metrics["seed"])

    @property
    def synthetic(self) -> bool:
        """Whether the audio is synthetic."""
        return bool(self.runs[0].metrics["synthetic"])

    @property
    def normalizes_by_speaker(self) -> bool:
        """Whether it used which test utterances are of one speaker; see `Run.normalizes_by_speaker`."""
        return self.runs[0].normalizes_by_speaker

    @property
    def overlaps(self) -> bool:
        """Whether test speakers are in the training part; see `Run.overlaps`."""
        return self.runs[0].overlaps

    def corpora(self) -> list[Experiment]:
        """Return the experiment restricted to each of several merged corpora; nothing for a single corpus."""
        names = self.runs[0].metrics.get("corpora", {})
        return [replace(self, runs=tuple(run.restrict(name) for run in self.runs)) for name in names]

    @property
    def corpus_title(self) -> str:
        """Name of the corpus for titles."""
        return f"{self.corpus} (synthetic audio)" if self.synthetic else self.corpus


def read_experiments(results: Path) -> list[Experiment]:
    """Read all finished folds below a folder, sorted by corpus, strategy, seed and the setting of a sweep.

    Raises
    ------
    InputError
        If there is none.

    Example
    -------
    >>> import json
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
        raise InputError(f"{results} has no finished fold; give the folder of the results")
    found = [Experiment(folder, read_runs(folder), _setting(folder)) for folder in folders]
    return sorted(found, key=lambda one: (one.corpus, one.strategy, one.seed, one.setting or (), one.folder))


def sweep_runs(experiments: Sequence[Experiment]) -> pd.DataFrame:
    """Tabulate the folds of sweeps that exist for all values of the sweep.

    Folds differ more than settings do, so only the same folds are compared.

    Returns
    -------
    pandas.DataFrame
        One row per fold: ``key``, ``value``, ``corpus``, ``strategy``, ``seed``, ``folder``, ``fold``, ``accuracy`` and
        ``valid_accuracy``.
    """
    curve = ["key", "corpus", "strategy", "seed"]
    measures = ["accuracy", "valid_accuracy"]
    rows = [
        (*one.setting, one.corpus, one.strategy, one.seed, one.folder, run.fold, *(run.metrics[m] for m in measures))
        for one in experiments
        if one.setting is not None
        for run in one.runs
    ]
    table = pd.DataFrame(rows, columns=["key", "value", *curve[1:], "folder", "fold", *measures])
    values = table.groupby(curve)["value"].transform("nunique")
    return table[table.groupby([*curve, "fold"])["value"].transform("nunique") == values]


def _setting(folder: Path) -> tuple[str, float] | None:
    found = SETTING.search(folder.resolve().as_posix())
    return (found[1], float(found[2])) if found else None
