"""Logistic regression on embeddings, held in tensors: the classifier of a frozen probe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ser_plugins.errors import InputError
from ser_plugins.models.buffers import resize_on_load
from ser_plugins.models.svm import check_classes, examples


class LogisticClassifier(nn.Module):
    """Multinomial logistic regression of scikit-learn on standardised embeddings, held in buffers.

    Parameters
    ----------
    n_classes : int
        Number of classes C, at least 2.
    c : sequence of float
        Inverse strengths of the L2 penalty to choose from by validation accuracy; of equal ones the smallest is taken.

    Attributes
    ----------
    chosen : dict
        After `fit`: ``c``, and ``accuracy`` on the validation part.

    Example
    -------
    >>> inputs, labels = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]), torch.tensor([0, 0, 1, 1])
    >>> classifier = LogisticClassifier(2).fit(inputs, labels, inputs, labels)
    >>> classifier(inputs[:, None]).argmax(-1).flatten().tolist()
    [0, 0, 1, 1]
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, n_classes: int, c: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)) -> None:
        super().__init__()
        if n_classes < 2:
            raise InputError(f"a classifier of {n_classes} class(es) decides nothing; give n_classes of 2 or more")
        if not c or min(c) <= 0:
            raise InputError(f"c must be numbers above 0, got {list(c)}")
        self.n_classes, self.c = n_classes, sorted(c)
        self.chosen: dict[str, float] = {}
        for name, shape in (("mean", (0,)), ("scale", (0,)), ("weight", (n_classes, 0)), ("bias", (n_classes,))):
            self.register_buffer(name, torch.zeros(shape))
        resize_on_load(self, mean=(0,), scale=(0,), weight=(1,))

    def fit(
        self, embeddings: ArrayLike, labels: ArrayLike, valid_embeddings: ArrayLike, valid_labels: ArrayLike
    ) -> LogisticClassifier:
        """Fit on the training part; the validation part chooses ``c``.

        Parameters
        ----------
        embeddings, valid_embeddings : array-like
            [N, 1, E] or [N, E].
        labels, valid_labels : array-like
            Class indices, [N].

        Raises
        ------
        InputError
            If a class has no training utterance, an embedding is not finite, or a label is no class index.
        """
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 — a loaded model does without

        known, targets = examples(embeddings, labels, self.n_classes)
        valid, expected = examples(valid_embeddings, valid_labels, self.n_classes)
        check_classes(targets, self.n_classes)
        mean, scale = known.mean(0), known.std(0) + 1e-8
        best: tuple[float, float, Any] | None = None
        for c in self.c:
            model = LogisticRegression(C=c, max_iter=2000).fit((known - mean) / scale, targets)
            accuracy = float((model.predict((valid - mean) / scale) == expected).mean())
            if best is None or accuracy > best[0]:
                best = accuracy, c, model
        assert best is not None
        self.chosen = {"c": best[1], "accuracy": best[0]}
        weight, bias = best[2].coef_, best[2].intercept_
        if self.n_classes == 2:  # scikit-learn has the second class alone
            weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
        for name, value in (("mean", mean), ("scale", scale), ("weight", weight), ("bias", bias)):
            setattr(self, name, torch.as_tensor(value, dtype=torch.float32, device=self.bias.device))
        return self

    def forward(self, embeddings: Tensor) -> Tensor:
        """Compute log-probabilities [..., C] of ``embeddings`` [..., E], in float32.

        Raises
        ------
        RuntimeError
            If nothing was fitted or loaded before.
        """
        if not len(self.mean):
            raise RuntimeError("the classifier is not fitted; call fit(embeddings, labels, …) or load a state dict")
        with torch.autocast(embeddings.device.type, enabled=False):
            standard = (embeddings.float() - self.mean) / self.scale
            return torch.log_softmax(torch.nn.functional.linear(standard, self.weight, self.bias), dim=-1)
