"""A bag of support vector machines, held in tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from ser_plugins.errors import InputError
from ser_plugins.models.buffers import resize_on_load
from ser_plugins.models.calibration import inverse_temperature
from ser_plugins.models.svm import SupportVectorMachine, check_classes, choose, examples, set_buffers

LACKING = "a bootstrap sample lacks a class; give more utterances of the rarest"


class BaggedSVMClassifier(nn.Module):
    """Ensemble of RBF support vector machines, each fitted on a bootstrap sample (bagging).

    After Bhavan, Chauhan, Hitkul and Shah, "Bagged support vector machines for emotion recognition from speech",
    Knowledge-Based Systems 184, 2019. Fitted by scikit-learn's ``BaggingClassifier`` of ``SVC``, then held in buffers,
    as `SVMClassifier`. Its scores are the ensemble's ``decision_function``, the mean of those of its machines, and its
    class is the highest one: ``BaggingClassifier.predict`` counts one vote a machine instead, which leaves ties.

    The paper leaves some choices open. Here the training part standardises the features. All machines have the C and
    gamma of the single machine with the best validation accuracy. Probabilities are the scores at a temperature that is
    calibrated on the validation part.

    Arguments
    ---------
    n_classes : int
        Number of classes, at least 2.
    machines : int
        Number of machines.
    seed : int
        Of the bootstrap samples.

    Attributes
    ----------
    chosen : dict
        After ``fit``: ``C``, ``gamma`` and the ``accuracy`` on the validation part. Not in the state dict.
    mean, scale : torch.Tensor
        [E], what features are standardised by.
    inverse_temperature : torch.Tensor
        Scalar.

    Example
    -------
    >>> features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]).repeat(4, 1)
    >>> labels = torch.tensor([0, 0, 1, 1]).repeat(4)
    >>> svm = BaggedSVMClassifier(n_classes=2, machines=5).fit(features, labels, features, labels)
    >>> svm(features[:4, None]).argmax(dim=-1).squeeze(1).tolist()
    [0, 0, 1, 1]
    """

    mean: torch.Tensor
    scale: torch.Tensor
    inverse_temperature: torch.Tensor

    def __init__(self, n_classes: int, machines: int = 20, seed: int = 0) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.seed = seed
        self.chosen: dict[str, float | str] = {}
        self.machines = nn.ModuleList(SupportVectorMachine(n_classes) for _ in range(machines))
        set_buffers(self, mean=np.zeros(1), scale=np.ones(1), inverse_temperature=np.ones(()))
        resize_on_load(self, mean=(0,), scale=(0,))

    def fit(
        self,
        features: torch.Tensor | ArrayLike,
        labels: torch.Tensor | ArrayLike,
        valid_features: torch.Tensor | ArrayLike,
        valid_labels: torch.Tensor | ArrayLike,
        C: Sequence[float] = (1, 10, 100),
        gamma: Sequence[float | str] = ("scale", 0.001, 0.1),
    ) -> BaggedSVMClassifier:
        """Fit the machines on bootstrap samples of the training part.

        Arguments
        ---------
        features : torch.Tensor or array
            [N, 1, E] or [N, E].
        labels : torch.Tensor or array
            [N] or [N, 1], class indices from 0; each class must occur.
        valid_features, valid_labels : torch.Tensor or array
            The same of a validation part, of other speakers; a class may be missing from it.
        C : sequence of float
            Penalties to try.
        gamma : sequence of float or "scale"
            Kernel widths to try; "scale" is 1 / E, since the features are standardised.

        Returns
        -------
        BaggedSVMClassifier
            Itself.

        Raises
        ------
        InputError
            The shapes do not match, a class has no utterance in the training part or in a bootstrap sample of it, or
            all features are the same.
        """
        from sklearn.ensemble import BaggingClassifier  # noqa: PLC0415 — only fitting needs it
        from sklearn.preprocessing import StandardScaler  # noqa: PLC0415
        from sklearn.svm import SVC  # noqa: PLC0415

        inputs, targets = examples(features, labels, self.n_classes)
        valid_inputs, valid_targets = examples(valid_features, valid_labels, self.n_classes)
        check_classes(targets, self.n_classes)
        scaler = StandardScaler().fit(inputs)
        inputs, valid_inputs = scaler.transform(inputs), scaler.transform(valid_inputs)
        single, self.chosen = choose(inputs, targets, valid_inputs, valid_targets, sorted(C), gamma)
        svc = SVC(C=single.C, gamma=single.gamma)
        bag = BaggingClassifier(svc, len(self.machines), random_state=self.seed)
        try:
            bag.fit(inputs, targets)
        except ValueError as error:  # of a sample of one class alone
            raise InputError(LACKING) from error
        for machine, fitted in zip(self.machines, bag.estimators_, strict=True):
            if not (len(fitted.n_support_) == self.n_classes and fitted.n_support_.all()):
                raise InputError(LACKING)
            assert isinstance(machine, SupportVectorMachine)
            machine.hold(fitted)
        decisions = bag.decision_function(valid_inputs)
        predicted = decisions > 0 if self.n_classes == 2 else decisions.argmax(1)
        self.chosen["accuracy"] = float((predicted == valid_targets).mean())
        found = inverse_temperature(decisions, valid_targets)
        set_buffers(self, mean=scaler.mean_, scale=scaler.scale_, inverse_temperature=np.asarray(found))
        return self

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Log-probabilities [B, 1, C] or [B, C], float32, of ``features`` [B, 1, E] or [B, E]."""
        scores = self.inverse_temperature.double() * self.decision_function(features)
        return scores.log_softmax(dim=-1).float()

    def decision_function(self, features: torch.Tensor) -> torch.Tensor:
        """Mean of the machines' scores, float64: the shapes are those of ``forward``."""
        inputs = (features.double() - self.mean.double()) / self.scale.double()
        scores = [machine.decision_function(inputs) for machine in self.machines]  # type: ignore[operator]
        return torch.stack(scores).mean(0)
