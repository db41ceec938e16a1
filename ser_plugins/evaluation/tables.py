"""Tables from results on disk."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ser_plugins.evaluation.results import Experiment, read_runs
from ser_plugins.files import atomic_write

MEASURES = ("accuracy", "uar", "macro_f1")


def summarise(folder: Path) -> dict[str, Any]:
    """Write ``summary.json`` and ``summary.md``: mean, minimum, maximum and standard deviation, as the paper's Table 2.

    A single fold has no deviation.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> run = {"strategy": "S1", "corpus": "demo", "seed": 1, "synthetic": True, "uar": 0.5, "macro_f1": 0.5}
    >>> for fold, accuracy in [(1, 0.5), (2, 0.7)]:
    ...     metrics = {**run, "fold": fold, "accuracy": accuracy}
    ...     atomic_write(folder / f"fold{fold}/metrics.json", json.dumps(metrics))
    >>> round(summarise(folder)["accuracy"]["mean"], 3)
    0.6
    """
    folds = [run.metrics for run in read_runs(folder)]
    summary: dict[str, Any] = {key: folds[0][key] for key in ("strategy", "corpus", "seed", "synthetic")}
    summary["folds"] = [metrics["fold"] for metrics in folds]
    for name in MEASURES:
        values = [metrics[name] for metrics in folds]
        summary[name] = {
            "mean": statistics.mean(values),
            "min": min(values),
            "max": max(values),
            "std": statistics.stdev(values) if len(values) > 1 else None,
        }
    atomic_write(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    atomic_write(folder / "summary.md", _markdown(summary, folds))
    return summary


def _markdown(summary: dict[str, Any], folds: Sequence[Mapping[str, Any]]) -> str:
    note = " (synthetic audio)" if summary["synthetic"] else ""
    lines = [f"# {summary['strategy']} on {summary['corpus']}{note}, {len(folds)} fold(s), seed {summary['seed']}", ""]
    lines += ["| % | mean | min | max | std |", "|---|---|---|---|---|"]
    for name in MEASURES:
        values = (summary[name][key] for key in ("mean", "min", "max", "std"))
        lines.append(f"| {name} | {' | '.join('–' if one is None else f'{100 * one:.2f}' for one in values)} |")
    lines += ["", "| fold | accuracy | uar | macro_f1 |", "|---|---|---|---|"]
    lines += [f"| {m['fold']} | " + " | ".join(f"{100 * m[name]:.2f}" for name in MEASURES) + " |" for m in folds]
    return "\n".join(lines) + "\n"


def sweep_runs(experiments: Sequence[Experiment]) -> pd.DataFrame:
    """One row a fold of what sweeps trained, where all values of the sweep have that fold.

    Folds differ by more than settings do: only the same ones may be compared.
    """
    line = ["key", "corpus", "strategy", "seed"]
    measures = ["accuracy", "valid_accuracy"]
    rows = [
        (*one.setting, one.corpus, one.strategy, one.seed, one.folder, run.fold, *(run.metrics[m] for m in measures))
        for one in experiments
        if one.setting is not None
        for run in one.runs
    ]
    table = pd.DataFrame(rows, columns=["key", "value", *line[1:], "folder", "fold", *measures])
    values = table.groupby(line)["value"].transform("nunique")
    return table[table.groupby([*line, "fold"])["value"].transform("nunique") == values]
