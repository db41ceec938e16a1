"""Calibration: one temperature for the logits of a trained classifier."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ser_plugins.models.svm import inverse_temperature

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
