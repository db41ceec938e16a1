"""Measures of predictions: accuracy, unweighted average recall, macro F1, equal error rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score, roc_curve

from ser_plugins.corpora.corpus import Corpus

Counts = NDArray[np.float64]


def measure(frame: pd.DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    """Measure predictions.

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns ``emotion``, the true one, and ``predicted``.
    classes : sequence of str
        All emotions, in the order of the confusion matrix.

    Returns
    -------
    dict
        ``accuracy``, ``uar`` (unweighted average recall) and ``macro_f1`` over the emotions that occur, shares from 0
        to 1; ``confusion``, counts with true emotions as rows.
    """
    true, predicted = frame["emotion"], frame["predicted"]
    present = sorted(set(true), key=list(classes).index)
    return {
        "accuracy": float(accuracy_score(true, predicted)),
        "uar": float(balanced_accuracy_score(true, predicted)),
        "macro_f1": float(f1_score(true, predicted, labels=present, average="macro", zero_division=0)),
        "confusion": confusion_matrix(true, predicted, labels=list(classes)).tolist(),
    }


def measure_each(frame: pd.DataFrame, corpora: Sequence[Corpus]) -> dict[str, dict[str, Any]]:
    """Measure the predictions of each of several merged corpora separately, over its own emotions."""
    rows = {corpus.name: frame[frame["corpus"] == corpus.name] for corpus in corpora}
    return {
        corpus.name: {
            "labels": list(corpus.labels),
            "n_test": len(rows[corpus.name]),
            **measure(rows[corpus.name], corpus.labels),
        }
        for corpus in corpora
    }


def equal_error_rate(targets: Sequence[int], scores: Sequence[float]) -> float:
    """Compute the equal error rate of verification: false acceptances and false rejections are equally frequent.

    Parameters
    ----------
    targets : sequence of int
        1 for pairs of the same speaker, 0 for pairs of two speakers.
    scores : sequence of float
        Similarity of each pair.

    Example
    -------
    >>> round(equal_error_rate([1, 1, 1, 0, 0, 0], [0.9, 0.8, 0.3, 0.4, 0.2, 0.1]), 3)
    0.333
    """
    accepted, recalled, _ = roc_curve(targets, scores, drop_intermediate=False)
    rejected = 1 - recalled
    nearest = int(np.abs(rejected - accepted).argmin())
    return float((rejected[nearest] + accepted[nearest]) / 2)


def pair_error(embeddings: Mapping[str, ArrayLike], pairs: pd.DataFrame) -> float:
    """Compute the equal error rate of trial pairs by the cosine of their embeddings.

    Parameters
    ----------
    embeddings : mapping
        Embedding [E] of each utterance by its id.
    pairs : pandas.DataFrame
        ``target`` (1: one speaker, 0: two), ``first`` and ``second``: ids.

    Example
    -------
    >>> pairs = pd.DataFrame({"target": [1, 0], "first": ["a", "a"], "second": ["b", "c"]})
    >>> pair_error({"a": [1.0, 0.0], "b": [2.0, 0.1], "c": [0.0, 1.0]}, pairs)
    0.0
    """
    first, second = (np.stack([np.asarray(embeddings[name]) for name in pairs[key]]) for key in ("first", "second"))
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return equal_error_rate(pairs["target"].tolist(), ((first * second).sum(1) / norms).tolist())


def confusions(true: NDArray[np.intp], predicted: NDArray[np.intp], actors: NDArray[np.intp], size: int) -> Counts:
    """Count the confusion matrix of each actor [A, C, C] from indices [N]; rows are true, columns predicted."""
    found = np.zeros((actors.max() + 1, size, size))
    np.add.at(found, (actors, true, predicted), 1.0)
    return found


def rates(confusion: Counts) -> dict[str, Counts]:
    """Compute ``accuracy``, ``uar`` and ``macro_f1`` [...] and ``recall`` [..., C] from confusion matrices [..., C, C].

    UAR and macro F1 are means over the emotions that occur; the recall of any other is NaN.

    Example
    -------
    >>> found = rates(np.array([[3.0, 1.0], [1.0, 1.0]]))
    >>> [round(float(found[name]), 3) for name in ("accuracy", "uar", "macro_f1")]
    [0.667, 0.625, 0.625]
    """
    right, true, predicted = np.einsum("...ii->...i", confusion), confusion.sum(-1), confusion.sum(-2)
    occurs = true > 0
    with np.errstate(invalid="ignore"):
        recall = np.where(occurs, right / true, np.nan)
        f1 = np.where(occurs, 2 * right / (true + predicted), 0.0)
        present = occurs.sum(-1)
        return {
            "accuracy": right.sum(-1) / true.sum(-1),
            "uar": np.where(occurs, recall, 0.0).sum(-1) / present,
            "macro_f1": f1.sum(-1) / present,
            "recall": recall,
        }
