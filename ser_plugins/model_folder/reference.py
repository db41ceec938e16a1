"""What a model makes of a known signal: kept in its folder, so that any copy of it can be checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ser_plugins.errors import InputError

REFERENCE = "reference.json"
SAMPLES = 32000  # two seconds
TOLERANCE = 1e-4
Values = Mapping[str, list[float]]


def waveform() -> Tensor:
    """Make the known signal: a hum of 120 Hz in noise, float32 samples [1, T] at 16 kHz, the same everywhere.

    Example
    -------
    >>> waveform().shape, round(float(waveform().std()), 3)
    (torch.Size([1, 32000]), 0.134)
    """
    noise = np.random.RandomState(0).standard_normal(SAMPLES)  # NumPy keeps this stream as it is; others it may change
    time = np.arange(SAMPLES) / 16000
    hum = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 21))
    return torch.from_numpy((0.1 * hum + 0.1 * noise).astype(np.float32))[None]


@torch.no_grad()
def respond(modules: Mapping[str, Any]) -> dict[str, list[float]]:
    """Give embedding and log-probabilities of the known signal.

    Parameters
    ----------
    modules : mapping
        ``compute_features``, ``mean_var_norm``, ``embedding_model`` and ``classifier``, on the CPU, in evaluation mode.
    """
    lengths = torch.ones(1)
    feats = modules["mean_var_norm"](modules["compute_features"](waveform()), lengths)
    embedding = modules["embedding_model"](feats, lengths)
    scores = modules["classifier"](embedding)
    return {"embedding": embedding.flatten().tolist(), "log_probabilities": scores.flatten().tolist()}


def compare(found: Values, expected: Values) -> None:
    """Compare two responses.

    Raises
    ------
    InputError
        If they differ by more than 1e-4 in any value.

    Example
    -------
    >>> compare({"embedding": [0.10002]}, {"embedding": [0.1]})
    >>> compare({"embedding": [0.2]}, {"embedding": [0.1]})
    Traceback (most recent call last):
        ...
    ser_plugins.errors.InputError: embedding off by 0.1
    """
    for name, values in expected.items():
        one, other = np.asarray(found.get(name, [])), np.asarray(values)
        if one.shape != other.shape:
            raise InputError(f"{name} of {one.size} values, not {other.size}")
        off = np.abs(one - other).max()
        if not off <= TOLERANCE:  # NaN, too
            raise InputError(f"{name} off by {off:.2g}")
