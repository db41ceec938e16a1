"""Measures of a system on distorted recordings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ser_plugins.evaluation.evaluate import encode, interval, with_intervals
from ser_plugins.evaluation.intervals import resample
from ser_plugins.evaluation.measures import confusions, rates
from ser_plugins.evaluation.protocol import Reference
from ser_plugins.evaluation.system import System

SEXES = ("female", "male")


def measure_stress(systems: Mapping[str, System], reference: Reference) -> list[dict[str, Any]]:
    """Measure the predictions of distorted recordings.

    Parameters
    ----------
    systems : mapping
        Predictions of the same utterances by the name of the distortion; the first ones are of the recordings as they
        are.
    reference : Reference
        The corpus.

    Returns
    -------
    list of dict
        Of each: ``distortion``; ``accuracy`` and ``uar``; ``changed``, the share of predictions that differ from the
        first ones; and, with a column ``sex`` of female and male, ``difference``, the UAR of women minus that of men.
        All have intervals over actors, as in `ser_plugins.evaluation.evaluate.evaluate`. A difference with a single
        woman or man has none.
    """
    before = encode(next(iter(systems.values())).table["predicted"], list(reference.labels))
    return [{"distortion": name, **_measure(one, before, reference)} for name, one in systems.items()]


def _measure(system: System, before: NDArray[np.intp], reference: Reference) -> dict[str, Any]:
    table, labels = system.table, list(reference.labels)
    actors, names = pd.factorize(table["speaker"])
    predicted = encode(table["predicted"], labels)
    counts = confusions(encode(table["emotion"], labels), predicted, actors, len(labels))
    found = with_intervals(counts)
    sums = np.stack([np.bincount(actors, predicted != before), np.bincount(actors)], axis=1)
    drawn = resample(sums)
    changed = interval(sums[:, 0].sum() / sums[:, 1].sum(), drawn[:, 0] / drawn[:, 1], len(sums))
    measured = {"accuracy": found["accuracy"], "uar": found["uar"], "changed": changed}
    if "sex" in table and set(table["sex"]) == set(SEXES):
        sexes = table.groupby("speaker")["sex"].first().loc[names].to_numpy()
        women, men = (counts * (sexes == sex)[:, None, None] for sex in SEXES)
        value = rates(women.sum(0))["uar"] - rates(men.sum(0))["uar"]
        draws = rates(resample(women))["uar"] - rates(resample(men))["uar"]
        measured["difference"] = interval(value, draws, min(int((sexes == sex).sum()) for sex in SEXES))
    return measured
