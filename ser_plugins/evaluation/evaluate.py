"""Evaluation of a system on a corpus: all measures, with intervals over the actors, as plain JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ser_plugins.evaluation.calibration import (
    probability_measures,
    probability_sums,
    reliability,
    risk_coverage,
)
from ser_plugins.evaluation.figures import ENDS
from ser_plugins.evaluation.intervals import percentiles, resample
from ser_plugins.evaluation.measures import confusions, rates
from ser_plugins.evaluation.protocol import Reference
from ser_plugins.evaluation.system import System

RATES = ("accuracy", "uar", "macro_f1")


def evaluate(system: System, reference: Reference) -> dict[str, Any]:
    """Measure the predictions of a system.

    All measures are pooled over the utterances of all folds. A measure with an interval is a dict of ``value``,
    ``low`` and ``high``: the ends of the 95 % bootstrap interval over actors, 10,000 resamples; None where there is
    none.

    Parameters
    ----------
    system : System
        Checked predictions of all utterances.
    reference : Reference
        The corpus.

    Returns
    -------
    dict
        ``system``, ``corpus``, ``labels``, ``utterances``, ``speakers``; ``accuracy``, ``uar``, ``macro_f1``;
        ``recall`` of each emotion; ``confusion``; ``folds``, the accuracy and UAR of each; ``groups``, these by sex,
        intensity, sentence and actor; with probabilities also ``ece``, ``brier``, ``log_loss``, ``reliability`` and
        ``risk_coverage``.
    """
    table, labels = system.table, list(reference.labels)
    true, predicted = (encode(table[name], labels) for name in ("emotion", "predicted"))
    counts = confusions(true, predicted, pd.factorize(table["speaker"])[0], len(labels))
    found = with_intervals(counts)
    recall = found.pop("recall")
    return {
        **{"system": system.name, "corpus": reference.name, "labels": labels},
        **{"utterances": len(table), "speakers": len(counts)},
        **found,
        "recall": dict(zip(labels, recall, strict=True)),
        "confusion": counts.sum(0).astype(int).tolist(),
        "folds": _parts(table, "block", labels, intervals=False) if "block" in table else [],
        "groups": {
            **{name: _parts(table, name, labels) for name in reference.groups},
            "actor": _parts(table, "speaker", labels, intervals=False),
        },
        **_of_probabilities(system, true, predicted),
    }


def encode(names: pd.Series[str], labels: list[str]) -> NDArray[np.intp]:
    """Return the index of each name among the labels."""
    found: NDArray[np.intp] = pd.Index(labels).get_indexer(pd.Index(names))
    return found


def with_intervals(counts: NDArray[np.float64]) -> dict[str, Any]:
    """Compute `rates` of confusion matrices [A, C, C], with intervals over the actors; ``recall`` is a list."""
    values, drawn = rates(counts.sum(0)), rates(resample(counts))
    return {
        **{name: interval(values[name], drawn[name], len(counts)) for name in RATES},
        "recall": [interval(*pair, len(counts)) for pair in zip(values["recall"], drawn["recall"].T, strict=True)],
    }


def interval(value: Any, drawn: NDArray[np.float64], actors: int) -> dict[str, float | None]:
    """Make a measure of its value and its resampled values [D]; a single actor has no interval."""
    ends = percentiles(drawn) if actors > 1 else (np.nan, np.nan)
    return {key: None if np.isnan(x) else float(x) for key, x in zip(ENDS, (value, *ends), strict=True)}


def _parts(table: pd.DataFrame, column: str, labels: list[str], intervals: bool = True) -> list[dict[str, Any]]:
    """Measure the utterances of each value of a column."""
    found = []
    for name, part in table.groupby(column, sort=False):
        true, predicted = (encode(part[key], labels) for key in ("emotion", "predicted"))
        counts = confusions(true, predicted, pd.factorize(part["speaker"])[0], len(labels))
        measured = with_intervals(counts) if intervals else rates(counts.sum(0))
        kept = {key: measured[key] if intervals else float(measured[key]) for key in RATES[:2]}
        found.append({"name": str(name), "utterances": len(part), "speakers": len(counts), **kept})
    return found


def _of_probabilities(system: System, true: NDArray[np.intp], predicted: NDArray[np.intp]) -> dict[str, Any]:
    if system.probabilities is None:
        return {}
    sums = probability_sums(system.probabilities, true, predicted, pd.factorize(system.table["speaker"])[0])
    values, drawn = probability_measures(sums.sum(0)), probability_measures(resample(sums))
    confidence = system.probabilities[np.arange(len(true)), predicted]
    return {
        **{name: interval(values[name], drawn[name], len(sums)) for name in values},
        "reliability": reliability(sums.sum(0)),
        "risk_coverage": risk_coverage(confidence, true == predicted),
    }
