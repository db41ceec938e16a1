"""How well predictions agree with what was meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score, roc_curve

from ser_plugins.corpora.corpus import Corpus


def measure(frame: pd.DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy, unweighted average recall, macro F1 and the confusion matrix (rows: true) of predictions."""
    true, predicted = frame["emotion"], frame["predicted"]
    present = sorted(set(true), key=list(classes).index)
    return {
        "accuracy": float(accuracy_score(true, predicted)),
        "uar": float(balanced_accuracy_score(true, predicted)),
        "macro_f1": float(f1_score(true, predicted, labels=present, average="macro", zero_division=0)),
        "confusion": confusion_matrix(true, predicted, labels=list(classes)).tolist(),
    }


def measure_each(frame: pd.DataFrame, corpora: Sequence[Corpus]) -> dict[str, dict[str, Any]]:
    """Measure the predictions of each merged corpus by itself, over the emotions that it has."""
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
    """Rate at which as many pairs of two speakers are accepted as pairs of one are refused.

    Example
    -------
    >>> round(equal_error_rate([1, 1, 1, 0, 0, 0], [0.9, 0.8, 0.3, 0.4, 0.2, 0.1]), 3)
    0.333
    """
    accepted, found, _ = roc_curve(targets, scores, drop_intermediate=False)
    refused = 1 - found
    nearest = int(np.abs(refused - accepted).argmin())
    return float((refused[nearest] + accepted[nearest]) / 2)
