"""The classifier on top of the metric embeddings: a support vector machine, held in tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn
from torch.nn import functional

from ser_plugins.errors import InputError
from ser_plugins.models.buffers import resize_on_load
from ser_plugins.models.calibration import inverse_temperature

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
KERNELS = ("rbf", "linear")


class SupportVectorMachine(nn.Module):
    """Support vector machine of scikit-learn, held in buffers.

    It needs no pickle, no scikit-learn to run, moves with ``.to`` and is saved as a state dict, which a new module
    loads whatever the number of support vectors. Its decisions are those of ``SVC(decision_function_shape="ovr")``, one
    vote for each pair of classes. All is computed in float64, autocast or not: votes are not continuous, and rounding
    may turn one.

    Arguments
    ---------
    n_classes : int
        Number of classes, at least 2.
    kernel : {"rbf", "linear"}
        Kernel: exp(−γ |x − y|²) or x · y.

    Attributes
    ----------
    support_vectors : torch.Tensor
        [S, E]
    pair_coefficients : torch.Tensor
        [S, P], weight of each support vector in the decision of each of the P = C (C − 1) / 2 pairs of classes.
    pair_intercepts : torch.Tensor
        [P]
    gamma : torch.Tensor
        Scalar; a linear kernel has no use for it.

    Example
    -------
    >>> from sklearn.svm import SVC
    >>> inputs = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    >>> machine = SupportVectorMachine(n_classes=2)
    >>> machine.hold(SVC(gamma=1.0).fit(inputs, [0, 0, 1, 1]))
    >>> machine.decision_function(inputs).argmax(dim=-1).tolist()
    [0, 0, 1, 1]
    """

    support_vectors: torch.Tensor
    pair_coefficients: torch.Tensor
    pair_intercepts: torch.Tensor
    gamma: torch.Tensor
    sides: torch.Tensor

    def __init__(self, n_classes: int, kernel: str = "rbf") -> None:
        super().__init__()
        if n_classes < 2:
            raise InputError(f"a classifier of {n_classes} class(es) decides nothing; give n_classes of 2 or more")
        if kernel not in KERNELS:
            raise InputError(f"kernel {kernel!r} is unknown; give one of {', '.join(KERNELS)}")
        self.n_classes = n_classes
        self.kernel = kernel
        pairs = _pairs(n_classes)
        set_buffers(
            self,
            support_vectors=np.zeros((0, 0)),
            pair_coefficients=np.zeros((0, len(pairs))),
            pair_intercepts=np.zeros(len(pairs)),
            gamma=np.ones(()),
        )
        # Row p has +1 for the first class of pair p and −1 for its second.
        first, second = functional.one_hot(torch.tensor(pairs), n_classes).double().unbind(dim=1)
        self.register_buffer("sides", first - second, persistent=False)
        resize_on_load(self, support_vectors=(0, 1), pair_coefficients=(0,))

    def hold(self, svc: Any) -> None:
        """Hold a fitted ``sklearn.svm.SVC`` of all classes, whose gamma is a number."""
        set_buffers(
            self,
            support_vectors=svc.support_vectors_,
            pair_coefficients=_pair_coefficients(svc, self.n_classes),
            # For two classes scikit-learn turns the sign: its positive decisions mean the second class.
            pair_intercepts=svc.intercept_ * (-1 if self.n_classes == 2 else 1),
            gamma=np.asarray(svc.gamma),
        )

    def decision_function(self, embeddings: torch.Tensor) -> torch.Tensor:
        """One score a class, float64: its votes, plus at most a third of a vote for how clear they are.

        scikit-learn's one-vs-rest decision function. Of two classes, which share one vote, it is minus and plus the
        decision itself. ``embeddings`` are [B, 1, E] or [B, E], the scores [B, 1, C] or [B, C].
        """
        pairs = self.pair_decisions(embeddings)
        sides = self.sides.to(pairs)
        sums = pairs @ sides
        if self.n_classes == 2:
            return sums
        votes = torch.where(pairs >= 0, 1.0, -1.0).to(pairs) @ sides
        # Each class takes part in C − 1 votes: won minus lost, to won.
        return (votes + self.n_classes - 1) / 2 + sums / (3 * (sums.abs() + 1))

    def pair_decisions(self, embeddings: torch.Tensor) -> torch.Tensor:
        """One-vs-one decisions [..., P], float64, of the pairs (0, 1), (0, 2), …; positive for a pair's first class.

        Raises
        ------
        RuntimeError
            Nothing was fitted or loaded before.
        """
        if not len(self.support_vectors):
            raise RuntimeError(
                "the SVM holds no support vectors; call fit(embeddings, labels) or load a state dict first"
            )
        with torch.autocast(embeddings.device.type, enabled=False):
            flat = embeddings.double().flatten(end_dim=-2)
            kernel = self._kernel(flat, self.support_vectors.double())
            decisions = kernel @ self.pair_coefficients.double() + self.pair_intercepts.double()
            return decisions.reshape(*embeddings.shape[:-1], decisions.shape[-1])

    def _kernel(self, inputs: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        if self.kernel == "linear":
            return inputs @ others.T
        # By matrix products however few there are: ONNX has no other form.
        distances = torch.cdist(inputs, others, compute_mode="use_mm_for_euclid_dist")
        return (-self.gamma.double() * distances.square()).exp()


class SVMClassifier(SupportVectorMachine):
    """Support vector machine on utterance embeddings (Mocanu et al. 2021, strategies S4 and S5, with an RBF kernel).

    Fitted by scikit-learn, then held as a `SupportVectorMachine`, whose attributes it has. Its classes are those of
    ``SVC(decision_function_shape="ovr", break_ties=True)``; its probabilities its decisions at a calibrated
    temperature. Embeddings are L2-normalised first, as the metric losses see them (their length carries nothing that
    was trained).

    Arguments
    ---------
    n_classes : int
        Number of classes, at least 2.
    kernel : {"rbf", "linear"}
        Kernel.
    head : torch.nn.Module, optional
        A classifier that is trained with the network, as `SoftmaxClassifier`, and decides until ``fit``.

    Attributes
    ----------
    chosen : dict
        After ``fit``: ``C``, ``gamma`` of an RBF kernel and, with validation data, its ``accuracy``. Not in the state
        dict.
    inverse_temperature : torch.Tensor
        Scalar.

    Example
    -------
    >>> embeddings = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    >>> svm = SVMClassifier(n_classes=2).fit(embeddings, torch.tensor([0, 0, 1, 1]))
    >>> svm(embeddings[:, None]).argmax(dim=-1).squeeze(1).tolist()
    [0, 0, 1, 1]
    """

    inverse_temperature: torch.Tensor

    def __init__(self, n_classes: int, kernel: str = "rbf", head: nn.Module | None = None) -> None:
        super().__init__(n_classes, kernel)
        self.head = head
        self.chosen: dict[str, float | str] = {}
        set_buffers(self, inverse_temperature=np.ones(()))

    def fit(
        self,
        embeddings: torch.Tensor | ArrayLike,
        labels: torch.Tensor | ArrayLike,
        valid_embeddings: torch.Tensor | ArrayLike | None = None,
        valid_labels: torch.Tensor | ArrayLike | None = None,
        C: Sequence[float] = (1, 10, 100),
        gamma: Sequence[float | str] = ("scale", 0.5, 2.0),
    ) -> SVMClassifier:
        """Fit support vectors, and choose C, gamma and temperature on the validation part.

        C and gamma are those of the best accuracy on the validation part (of equal ones the smallest C, then the first
        gamma); the temperature is that of its least cross-entropy (scikit-learn's temperature calibration). Without a
        validation part C is 1, gamma "scale", and the temperature that of held-out decisions in a cross-validation of
        the training part; folds then share speakers, so these probabilities are too sure of themselves.

        Arguments
        ---------
        embeddings : torch.Tensor or array
            [N, 1, E] or [N, E].
        labels : torch.Tensor or array
            [N] or [N, 1], class indices from 0; each class must occur.
        valid_embeddings, valid_labels : torch.Tensor or array, optional
            The same of a validation part, of other speakers; a class may be missing from it.
        C : sequence of float
            Penalties to try; the paper gives none.
        gamma : sequence of float or "scale"
            Widths of an RBF kernel to try; "scale" is 1 / (E · variance of the normalised embeddings).

        Returns
        -------
        SVMClassifier
            Itself.

        Raises
        ------
        InputError
            The shapes do not match, a class has no utterance, or only one while there is no validation part, or all
            embeddings are the same.
        """
        inputs, targets = self._examples(embeddings, labels)
        smallest = check_classes(targets, self.n_classes)
        if (valid_embeddings is None) != (valid_labels is None):
            raise InputError("the validation part has embeddings or labels only; give both or neither")
        if valid_embeddings is None or valid_labels is None:
            svc, decisions = _fit_alone(inputs, targets, min(5, smallest), self.kernel)
            self.chosen = {"C": 1, "gamma": "scale"}
        else:
            valid_inputs, valid_targets = self._examples(valid_embeddings, valid_labels)
            svc, self.chosen = choose(inputs, targets, valid_inputs, valid_targets, sorted(C), gamma, self.kernel)
            decisions, targets = svc.decision_function(valid_inputs), valid_targets
        if self.kernel == "linear":
            del self.chosen["gamma"]
        self.hold(svc)
        set_buffers(self, inverse_temperature=np.asarray(inverse_temperature(decisions, targets)))
        return self

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """Calibrated log-probabilities; before ``fit``, those of the head.

        Arguments
        ---------
        embeddings : torch.Tensor
            [B, 1, E] or [B, E], any floating-point type.
        labels : torch.Tensor, optional
            Class indices, for the head.

        Returns
        -------
        torch.Tensor
            [B, 1, C] or [B, C], float32.

        Raises
        ------
        RuntimeError
            Neither ``fit`` nor ``load_state_dict`` came before, and there is no head.
        """
        if self.head is not None and not len(self.support_vectors):
            return self.head(embeddings, labels)  # type: ignore[no-any-return]
        scores = self.inverse_temperature.double() * self.decision_function(embeddings)
        return scores.log_softmax(dim=-1).float()

    def pair_decisions(self, embeddings: torch.Tensor) -> torch.Tensor:
        """One-vs-one decisions of the normalised embeddings; see `SupportVectorMachine`."""
        return super().pair_decisions(functional.normalize(embeddings.double(), dim=-1))

    def _examples(
        self, embeddings: torch.Tensor | ArrayLike, labels: torch.Tensor | ArrayLike
    ) -> tuple[Floats, Labels]:
        """Normalise embeddings to [N, E] and labels to [N], as arrays."""
        inputs, targets = examples(embeddings, labels, self.n_classes)
        return functional.normalize(torch.from_numpy(inputs), dim=-1).numpy(), targets


def examples(
    embeddings: torch.Tensor | ArrayLike, labels: torch.Tensor | ArrayLike, n_classes: int
) -> tuple[Floats, Labels]:
    """Bring embeddings [N, 1, E] or [N, E] and labels [N] or [N, 1] to arrays [N, E], float64, and [N].

    Raises
    ------
    InputError
        The shapes do not match, an embedding is not finite, or a label no class index.
    """
    inputs = torch.as_tensor(embeddings).detach().cpu().double()
    inputs = inputs.squeeze(1) if inputs.dim() == 3 else inputs
    targets = torch.as_tensor(labels).detach().cpu().flatten()
    if inputs.dim() != 2 or len(inputs) != len(targets):
        raise InputError(f"{len(targets)} labels for embeddings {list(inputs.shape)}; give one for each of [N, E]")
    if not inputs.isfinite().all():
        raise InputError("an embedding is not finite; look for a diverged training run or a silent file")
    strange = targets[(targets < 0) | (targets >= n_classes) | (targets != targets.long())]
    if len(strange):
        raise InputError(f"label {strange[0].item()} is no class index from 0 to {n_classes - 1}")
    return inputs.numpy(), targets.long().numpy()


def check_classes(targets: Labels, n_classes: int) -> int:
    """Return the size of the smallest class.

    Raises
    ------
    InputError
        A class is empty.
    """
    counts = np.bincount(targets, minlength=n_classes)
    if not counts.all():
        raise InputError(f"class {int(counts.argmin())} has no utterance in the training part; leave its label out")
    return int(counts.min())


def scale_gamma(inputs: Floats) -> float:
    """Return scikit-learn's ``gamma="scale"``, 1 / (E · variance), of inputs [N, E].

    Raises
    ------
    InputError
        All inputs are the same, to the last digits of float32.
    """
    if np.ptp(inputs, axis=0).max() < 1e-7:
        raise InputError(
            "the embeddings of the training part are all the same: the training of the network has collapsed; "
            "train it again, with a lower learning rate or another seed"
        )
    return float(1 / (inputs.shape[1] * inputs.var()))


def set_buffers(module: nn.Module, **arrays: Floats) -> None:
    """Hold arrays as float64 buffers, where the module is."""
    device = next((buffer.device for buffer in module.buffers()), None)
    for name, array in arrays.items():
        module.register_buffer(name, torch.tensor(array, dtype=torch.float64, device=device))


def _pairs(n_classes: int) -> list[tuple[int, int]]:
    """List the pairs of classes in libsvm's order."""
    return [(first, second) for first in range(n_classes) for second in range(first + 1, n_classes)]


def _support_vector_machine(C: float, gamma: float | str, kernel: str) -> Any:
    """Make the scikit-learn estimator."""
    from sklearn.svm import SVC  # noqa: PLC0415 — only fitting needs it

    return SVC(C=C, gamma=gamma, kernel=kernel, decision_function_shape="ovr", break_ties=True, cache_size=500)


def choose(
    inputs: Floats,
    targets: Labels,
    valid_inputs: Floats,
    valid_targets: Labels,
    penalties: Sequence[float],
    gammas: Sequence[float | str],
    kernel: str = "rbf",
) -> tuple[Any, dict[str, float | str]]:
    """Return the machine of the best validation accuracy and what was chosen.

    The kernels of all settings come from one matrix of distances or products: left to itself, libsvm computes them
    again, value by value, for each.
    """
    from sklearn.metrics.pairwise import euclidean_distances  # noqa: PLC0415 — only fitting needs it

    scale, parts = scale_gamma(inputs), (inputs, valid_inputs)
    if kernel == "linear":
        gammas, products = ["scale"], [part @ inputs.T for part in parts]
    else:
        products = [euclidean_distances(part, inputs, squared=True) for part in parts]
    widths = {gamma: scale if gamma == "scale" else float(gamma) for gamma in gammas}
    found = {}
    for gamma in gammas:
        width = widths[gamma]
        known, valid = products if kernel == "linear" else (np.exp(-width * one) for one in products)
        for penalty in penalties:
            svc = _support_vector_machine(penalty, width, "precomputed").fit(known, targets)
            found[penalty, gamma] = float(svc.score(valid, valid_targets))
    ranked = sorted(found, key=lambda setting: (-found[setting], setting[0], list(gammas).index(setting[1])))
    penalty, gamma = ranked[0]
    svc = _support_vector_machine(penalty, widths[gamma], kernel).fit(inputs, targets)
    return svc, {"C": penalty, "gamma": gamma, "accuracy": found[ranked[0]]}


def _fit_alone(inputs: Floats, targets: Labels, folds: int, kernel: str) -> tuple[Any, Floats]:
    """Fit without a validation part; return the machine and the held-out decisions of a cross-validation."""
    from sklearn.model_selection import cross_val_predict  # noqa: PLC0415 — only fitting needs it

    if folds < 2:
        raise InputError("a class has a single utterance, too few to calibrate; give a validation part")
    scale = scale_gamma(inputs)
    svc = _support_vector_machine(1, "scale", kernel)  # of each fold
    decisions = cross_val_predict(svc, inputs, targets, cv=folds, method="decision_function")
    return _support_vector_machine(1, scale, kernel).fit(inputs, targets), decisions


def _pair_coefficients(svc: Any, n_classes: int) -> Floats:
    """Spread libsvm's dual coefficients [C − 1, S] over the pairs of classes [S, P].

    A support vector of class i weighs in the pairs of i only: against a later class j by row j − 1, an earlier one by
    row j.
    """
    owner = np.repeat(np.arange(n_classes), svc.n_support_)
    dual = svc.dual_coef_ * (-1 if n_classes == 2 else 1)
    columns = [np.where(owner == i, dual[j - 1], np.where(owner == j, dual[i], 0.0)) for i, j in _pairs(n_classes)]
    return np.stack(columns, axis=1)
