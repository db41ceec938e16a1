"""Summaries of the folds of a run."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ser_plugins.evaluation.results import read_runs
from ser_plugins.files import atomic_write

MEASURES = ("accuracy", "uar", "macro_f1")


def summarise(folder: Path) -> dict[str, Any]:
    """Write ``summary.json`` and ``summary.md`` of the finished folds in a folder.

    Returns
    -------
    dict
        ``strategy``, ``corpus``, ``seed``, ``synthetic``, the numbers of the ``folds``, and for each measure ``mean``,
        ``min``, ``max`` and ``std`` over them; the standard deviation of a single fold is None.

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
