"""The reference output of a model: what it computes for a known signal, to check any copy of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ser_plugins.audio.reading import SAMPLE_RATE
from ser_plugins.errors import InputError
from ser_plugins.model_folder.forward import embed

REFERENCE = "reference.json"
SAMPLES = 32000  # two seconds
TOLERANCE = 1e-4
Output = Mapping[str, list[float]]


def reference_waveform() -> Tensor:
    """Make the known signal: a hum of 120 Hz in noise, float32 samples [1, 32000] at 16 kHz, the same everywhere.

    Example
    -------
    >>> reference_waveform().shape, round(float(reference_waveform().std()), 3)
    (torch.Size([1, 32000]), 0.134)
    """
    noise = np.random.RandomState(0).standard_normal(SAMPLES)  # NumPy guarantees this stream, unlike its newer ones
    time = np.arange(SAMPLES) / SAMPLE_RATE
    hum = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 21))
    return torch.from_numpy((0.1 * hum + 0.1 * noise).astype(np.float32))[None]


@torch.no_grad()
def reference_output(modules: Mapping[str, Any]) -> dict[str, list[float]]:
    """Compute the embedding and the log-probabilities of the known signal.

    Parameters
    ----------
    modules : mapping
        ``compute_features``, ``mean_var_norm``, ``embedding_model`` and ``classifier``, on the CPU, in evaluation mode.

    Returns
    -------
    dict
        ``embedding`` (E values) and ``log_probabilities`` (C values).
    """
    embedding = embed(modules, reference_waveform())
    scores = modules["classifier"](embedding)
    return {"embedding": embedding.flatten().tolist(), "log_probabilities": scores.flatten().tolist()}


def compare_outputs(found: Output, expected: Output) -> None:
    """Compare two outputs for the known signal.

    Raises
    ------
    InputError
        If any value differs by more than 1e-4.

    Example
    -------
    >>> compare_outputs({"embedding": [0.10002]}, {"embedding": [0.1]})
    >>> compare_outputs({"embedding": [0.2]}, {"embedding": [0.1]})
    Traceback (most recent call last):
        ...
    ser_plugins.errors.InputError: embedding off by 0.1
    """
    for name, values in expected.items():
        one, other = np.asarray(found.get(name, [])), np.asarray(values)
        if one.shape != other.shape:
            raise InputError(f"{name} has {one.size} values, not {other.size}")
        off = np.abs(one - other).max()
        if not off <= TOLERANCE:  # also true of NaN
            raise InputError(f"{name} off by {off:.2g}")
