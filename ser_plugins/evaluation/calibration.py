"""Measures of probabilities: calibration error, Brier score, log-loss, and risk against coverage."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15
SMALLEST = 1e-6  # a probability that was rounded to zero is no certainty
Floats = NDArray[np.float64]
Integers = NDArray[np.intp]


def probability_sums(probabilities: Floats, true: Integers, predicted: Integers, actors: Integers) -> Floats:
    """Sum over the utterances of each actor what `probability_measures` needs.

    Parameters
    ----------
    probabilities : numpy.ndarray
        [N, C]
    true, predicted, actors : numpy.ndarray
        Index of the emotion, of the prediction and of the actor of each utterance [N].

    Returns
    -------
    numpy.ndarray
        [A, 2 + 3 · 15]: Brier score, log-loss; utterances, right ones and confidence in each bin of confidence.
    """
    rows = np.arange(len(true))
    confidence, right = probabilities[rows, predicted], true == predicted
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    squares = (probabilities**2).sum(1) - 2 * probabilities[rows, true] + 1
    losses = -np.log(probabilities[rows, true].clip(min=SMALLEST))
    sums = np.zeros((actors.max() + 1, 2 + 3 * BINS))
    for column, values in enumerate([squares, losses]):
        sums[:, column] = np.bincount(actors, values)
    for block, values in enumerate([np.ones(len(true)), right, confidence]):
        np.add.at(sums, (actors, 2 + block * BINS + bins), values)
    return sums


def probability_measures(sums: Floats) -> dict[str, Floats]:
    """Compute ``ece``, ``brier`` and ``log_loss`` [...] from sums [..., 47] over utterances.

    The expected calibration error is the mean over utterances of the distance between accuracy and confidence, in 15
    bins of equal width (Guo et al., ICML 2017). The Brier score is the sum over classes of squared errors, from 0 to 2
    (Brier, 1950). Probabilities below 10⁻⁶ count as 10⁻⁶ in the log-loss.
    """
    counts, right, confidence = np.split(sums[..., 2:], 3, axis=-1)
    utterances = counts.sum(-1)
    return {
        "ece": np.abs(right - confidence).sum(-1) / utterances,
        "brier": sums[..., 0] / utterances,
        "log_loss": sums[..., 1] / utterances,
    }


def reliability(sums: Floats) -> list[dict[str, float]]:
    """Return the points of the reliability diagram from sums [47]: the bins of confidence that are not empty."""
    counts, right, confidence = np.split(sums[2:], 3)
    return [
        {
            "utterances": int(counts[i]),
            "confidence": float(confidence[i] / counts[i]),
            "accuracy": float(right[i] / counts[i]),
        }
        for i in np.flatnonzero(counts)
    ]


def risk_coverage(confidence: Floats, right: NDArray[np.bool_]) -> dict[str, Any]:
    """Measure the errors that remain when a system answers only where it is confident.

    Parameters
    ----------
    confidence : numpy.ndarray
        Probability of the prediction of each utterance [N].
    right : numpy.ndarray
        Whether it is right [N].

    Returns
    -------
    dict
        ``aurc``, the mean risk over the coverages 1 / N … 1 (Geifman and El-Yaniv, NeurIPS 2017); ``points`` with
        ``coverage``, ``accuracy`` and ``probability``, the smallest one that is answered, at most one point per
        hundredth of coverage. Utterances of equal confidence are answered together.

    Example
    -------
    >>> risk_coverage(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, True]))["points"][2]
    {'coverage': 0.75, 'accuracy': 0.6666666666666666, 'probability': 0.7}
    """
    thresholds, group = np.unique(-confidence, return_inverse=True)
    sizes = np.bincount(group)
    answered, hits = np.cumsum(sizes), np.cumsum(np.bincount(group, weights=right))
    accuracy, coverage = hits / answered, answered / len(right)
    kept = np.unique(np.searchsorted(coverage, np.arange(1, 101) / 100 - 1e-9))
    columns = {"coverage": coverage[kept], "accuracy": accuracy[kept], "probability": -thresholds[kept]}
    points = [dict(zip(columns, map(float, row), strict=True)) for row in zip(*columns.values(), strict=True)]
    return {"aurc": float((sizes * (1 - accuracy)).sum() / len(right)), "points": points}
