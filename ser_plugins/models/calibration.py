"""Calibration: one temperature for the logits of a trained classifier."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

MOST = 10.0  # inverse temperature: a validation part without an error asks for an infinite one


def fit_temperature(log_probabilities: Tensor, labels: Tensor) -> float:
    """Return the temperature of the least cross-entropy (Guo et al., ICML 2017), at least 0.1.

    Parameters
    ----------
    log_probabilities : torch.Tensor
        Of utterances that the classifier was not trained on, [N, 1, C] or [N, C].
    labels : torch.Tensor
        Class indices [N].

    Returns
    -------
    float
        The temperature by which the logits are to be divided.

    Example
    -------
    >>> import torch
    >>> sure = torch.tensor([[0.99, 0.01]] * 4).log()  # and right three times of four
    >>> round(fit_temperature(sure, torch.tensor([0, 0, 0, 1])), 2)
    4.18
    """
    decisions = log_probabilities.detach().flatten(end_dim=-2).double().cpu().numpy()
    inverse = inverse_temperature(decisions, labels.cpu().numpy().astype(np.int64))
    return 1 / min(inverse, MOST)


def inverse_temperature(decisions: NDArray[np.float64], targets: NDArray[np.int64]) -> float:
    """Factor on the decisions of the least cross-entropy (Guo et al., 2017), as scikit-learn's temperature calibration.

    Its CalibratedClassifierCV would cross-validate even a frozen machine, and so refuse a validation part in which a
    class is rare or missing.
    """
    from scipy.optimize import minimize_scalar  # noqa: PLC0415 — only fitting needs it

    logits = torch.from_numpy(decisions if decisions.ndim == 2 else np.stack([-decisions, decisions], axis=1))
    classes = torch.from_numpy(targets)

    def cross_entropy(log_factor: float) -> float:
        return functional.cross_entropy(math.exp(log_factor) * logits, classes).item()

    return math.exp(minimize_scalar(cross_entropy, bounds=(-10.0, 10.0), options={"xatol": 1e-12}).x)
