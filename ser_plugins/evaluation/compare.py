"""Comparison of systems on the same utterances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import wilcoxon

from ser_plugins.errors import InputError
from ser_plugins.evaluation.evaluate import encode, interval
from ser_plugins.evaluation.intervals import resample
from ser_plugins.evaluation.measures import confusions, rates
from ser_plugins.evaluation.page import measure
from ser_plugins.evaluation.protocol import Reference
from ser_plugins.evaluation.system import System

NOTE = (
    "Differences are first minus second, in percentage points, with their 95 % bootstrap interval over actors. p is of "
    "Wilcoxon's signed-rank test over the accuracies of the actors; Holm's correction is over all pairs."
)


def compare(systems: Sequence[System], reference: Reference) -> dict[str, Any]:
    """Compare each pair of systems.

    Parameters
    ----------
    systems : sequence of System
        Two or more, with predictions of all utterances.
    reference : Reference
        The corpus.

    Returns
    -------
    dict
        ``corpus``, ``utterances``, ``speakers``, ``systems`` with the accuracy and UAR of each, and ``pairs``:
        ``first``, ``second``; ``accuracy`` and ``uar``, the differences with intervals over actors; ``p`` of
        Wilcoxon's signed-rank test over the accuracies of the actors; ``p_holm``, corrected for the number of pairs
        (Holm, Scandinavian Journal of Statistics 1979); ``only_first``, ``only_second``, ``both`` and ``neither``,
        counts of utterances by who is right.

    Raises
    ------
    InputError
        If there are fewer than two systems, or two have one name.
    """
    names = [system.name for system in systems]
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise InputError(f"{', '.join(names)}: give two or more different systems")
    actors = pd.factorize(reference.table["speaker"])[0]
    true = encode(reference.table["emotion"], list(reference.labels))
    right, counts = {}, {}
    for system in systems:
        predicted = encode(system.table["predicted"], list(reference.labels))
        right[system.name] = predicted == true
        counts[system.name] = confusions(true, predicted, actors, len(reference.labels))
    values = {name: rates(found.sum(0)) for name, found in counts.items()}
    drawn = {name: rates(resample(found)) for name, found in counts.items()}
    pairs: list[dict[str, Any]] = []
    for first, second in combinations(names, 2):
        differences = {
            key: interval(
                values[first][key] - values[second][key], drawn[first][key] - drawn[second][key], len(set(actors))
            )
            for key in ("accuracy", "uar")
        }
        p = _wilcoxon(rates(counts[first])["accuracy"] - rates(counts[second])["accuracy"])
        pairs.append(
            {"first": first, "second": second, **differences, "p": p, **_agreement(right[first], right[second])}
        )
    for pair, corrected in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["p_holm"] = float(corrected)
    return {
        **{"corpus": reference.name, "utterances": len(true), "speakers": len(set(actors))},
        "systems": [{"name": name, **{key: float(values[name][key]) for key in ("accuracy", "uar")}} for name in names],
        "pairs": pairs,
    }


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Correct p-values for their number by Holm's step-down method.

    Example
    -------
    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, dtype=float)
    order = np.argsort(values)
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1)
    corrected = np.empty_like(values)
    corrected[order] = steps
    return corrected


def _wilcoxon(differences: NDArray[np.float64]) -> float:
    """Test whether the differences are symmetric about zero; actors without a difference say nothing."""
    differences = differences.round(12)  # of equal shares, rounding leaves no difference
    return float(wilcoxon(differences).pvalue) if differences.any() else 1.0


def _agreement(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> dict[str, int]:
    return {
        "only_first": int((first & ~second).sum()),
        "only_second": int((second & ~first).sum()),
        "both": int((first & second).sum()),
        "neither": int((~first & ~second).sum()),
    }


def _p_value(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def text(result: Mapping[str, Any]) -> str:
    """Write a comparison as text."""
    systems = [
        {"system": one["name"], "accuracy": measure(one["accuracy"]), "UAR": measure(one["uar"])}
        for one in result["systems"]
    ]
    pairs = [
        {
            **{"first": pair["first"], "second": pair["second"]},
            **{"accuracy": measure(pair["accuracy"]), "UAR": measure(pair["uar"])},
            **{"p": _p_value(pair["p"]), "p (Holm)": _p_value(pair["p_holm"])},
            **{"only first right": pair["only_first"], "only second right": pair["only_second"]},
        }
        for pair in result["pairs"]
    ]
    head = f"{result['corpus']}: {result['utterances']} utterances of {result['speakers']} actors"
    frames = [pd.DataFrame(rows).to_string(index=False) for rows in (systems, pairs)]
    return "\n\n".join([head, *frames, NOTE])
