"""Confidence intervals over the actors of the test parts."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from scipy.stats import bootstrap


def accuracy_interval(frames: Sequence[pd.DataFrame]) -> tuple[float, float]:
    """Compute the 95 % bootstrap interval of the mean accuracy over folds, by resampling test actors.

    Actors are the unit of the bootstrap: predictions of one actor depend on each other, and folds are few and share
    training data. An utterance has the weight that it has in the mean over folds, 1 / size of its fold.

    Parameters
    ----------
    frames : sequence of pandas.DataFrame
        Predictions of each fold: ``speaker``, ``emotion`` and ``predicted``.

    Returns
    -------
    tuple of float
        Lower and upper end, shares from 0 to 1; NaN for a single actor.

    Example
    -------
    >>> fold = {"speaker": ["anna", "ben"], "emotion": ["sad", "sad"], "predicted": ["sad", "calm"]}
    >>> accuracy_interval([pd.DataFrame(fold)])
    (0.0, 1.0)
    """
    table = pd.concat([frame.assign(weight=1 / len(frame)) for frame in frames])
    table["right"] = table["weight"].where(table["emotion"] == table["predicted"], 0.0)
    actors = table.groupby("speaker")[["right", "weight"]].sum()
    if len(actors) < 2:
        return float("nan"), float("nan")
    found = bootstrap(
        (actors["right"].to_numpy(), actors["weight"].to_numpy()),
        lambda right, weight, axis: right.sum(axis) / weight.sum(axis),
        paired=True,
        method="percentile",
        rng=0,
    ).confidence_interval
    return float(found.low), float(found.high)
