"""Confidence intervals over the actors of the test parts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

DRAWS = 10_000  # bootstrap resamples


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
    return _weighted_interval([frame.assign(value=_right(frame)) for frame in frames])


def difference_interval(first: Sequence[pd.DataFrame], second: Sequence[pd.DataFrame]) -> tuple[float, float]:
    """Compute the interval of the difference between two systems' mean accuracies, as `accuracy_interval` does.

    The systems are paired: both are resampled by the same actors.

    Parameters
    ----------
    first, second : sequence of pandas.DataFrame
        Predictions of each fold: ``id``, ``speaker``, ``emotion`` and ``predicted``, of the same utterances.

    Returns
    -------
    tuple of float
        Lower and upper end of first minus second; NaN for a single actor.

    Raises
    ------
    ValueError
        If a fold's utterances differ.

    Example
    -------
    >>> fold = {"id": ["1", "2"], "speaker": ["anna", "ben"], "emotion": ["sad", "sad"]}
    >>> one, other = (pd.DataFrame({**fold, "predicted": answers}) for answers in (["sad", "sad"], ["calm", "sad"]))
    >>> difference_interval([one], [other])
    (0.0, 1.0)
    """
    frames = []
    for one, other in zip(first, second, strict=True):
        if sorted(one["id"]) != sorted(other["id"]):
            raise ValueError("the systems have predictions of different utterances")
        theirs = _right(other.set_index("id").loc[one["id"]])
        frames.append(one.assign(value=_right(one) - theirs))
    return _weighted_interval(frames)


def _right(frame: pd.DataFrame) -> NDArray[np.float64]:
    return (frame["emotion"] == frame["predicted"]).to_numpy().astype(np.float64)


def _weighted_interval(frames: Sequence[pd.DataFrame]) -> tuple[float, float]:
    """Resample actors; a ``value`` has the weight that it has in the mean over folds."""
    table = pd.concat([frame.assign(weight=1 / len(frame)) for frame in frames])
    table["right"] = table["weight"] * table["value"]
    actors = table.groupby("speaker")[["right", "weight"]].sum()
    if len(actors) < 2:
        return float("nan"), float("nan")
    right, weight = resample(actors.to_numpy()).T
    return percentiles(right / weight)


@cache
def actor_draws(actors: int) -> NDArray[np.float64]:
    """Return how often each of the actors is in each bootstrap resample [D, A], of a fixed seed.

    Systems that are resampled by the same draws are paired.
    """
    return np.random.default_rng(0).multinomial(actors, np.full(actors, 1 / actors), DRAWS).astype(float)


def resample(sums: NDArray[Any]) -> NDArray[np.float64]:
    """Return the sums over the actors of each bootstrap resample.

    Any measure that is a function of sums over utterances, such as a confusion matrix, is computed from them.

    Parameters
    ----------
    sums : numpy.ndarray
        Sums over the utterances of each actor [A, ...].

    Returns
    -------
    numpy.ndarray
        [D, ...]

    Example
    -------
    >>> right, clips = resample(np.array([[3, 4], [1, 4]])).T
    >>> percentiles(right / clips)
    (0.25, 0.75)
    """
    found: NDArray[np.float64] = np.tensordot(actor_draws(len(sums)), sums, axes=1)
    return found


def percentiles(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the ends of the central 95 % of values; NaN if all are NaN."""
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)
