"""Classifiers that scikit-learn fits on embeddings, held in tensors: neighbours, forest, perceptron, and selection."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from ser_plugins.errors import InputError
from ser_plugins.models.buffers import resize_on_load
from ser_plugins.models.svm import Floats, Labels, check_classes, examples

Arrays = dict[str, NDArray[Any]]
LEAST = 1e-4  # probability of a class that no neighbour and no leaf has: its logarithm is finite


class BufferedClassifier(nn.Module):
    """What classifiers in buffers share: buffers of any shape are loaded, and none is read before."""

    def __init__(self, buffers: Arrays) -> None:
        super().__init__()
        self._hold(buffers)
        resize_on_load(self, **{name: range(array.ndim) for name, array in buffers.items()})

    def _hold(self, arrays: Arrays) -> None:
        """Hold arrays as buffers, where the module is."""
        device = next((buffer.device for buffer in self.buffers()), None)
        for name, array in arrays.items():
            self.register_buffer(name, torch.as_tensor(array, device=device))

    def _check_fitted(self) -> None:
        if not all(buffer.numel() for buffer in self.buffers(recurse=False)):
            raise RuntimeError(f"{type(self).__name__} is not fitted; call fit(embeddings, labels, …) or load a state")


class FittedClassifier(BufferedClassifier):
    """Base of the classifiers of scikit-learn whose settings the validation part chooses.

    A subclass names its buffers, lists estimators with their settings, and computes the probabilities from the buffers.

    Parameters
    ----------
    n_classes : int
        Number of classes C, at least 2.
    buffers : mapping
        Empty array of each buffer.

    Attributes
    ----------
    chosen : dict
        After `fit`: the settings, and ``accuracy`` on the validation part. Not in the state dict.
    """

    def __init__(self, n_classes: int, buffers: Arrays) -> None:
        if n_classes < 2:
            raise InputError(f"a classifier of {n_classes} class(es) decides nothing; give n_classes of 2 or more")
        super().__init__(buffers)
        self.n_classes = n_classes
        self.chosen: dict[str, float] = {}

    def fit(
        self,
        embeddings: Tensor | ArrayLike,
        labels: Tensor | ArrayLike,
        valid_embeddings: Tensor | ArrayLike,
        valid_labels: Tensor | ArrayLike,
    ) -> FittedClassifier:
        """Fit on the training part; the validation part chooses the settings, of equal ones the first.

        Parameters
        ----------
        embeddings, valid_embeddings : torch.Tensor or array
            [N, 1, E] or [N, E].
        labels, valid_labels : torch.Tensor or array
            Class indices, [N] or [N, 1].

        Raises
        ------
        InputError
            If the shapes do not match, or a class has no training utterance.
        """
        from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415 — only fitting needs it

        inputs, targets = examples(embeddings, labels, self.n_classes)
        valid_inputs, valid_targets = examples(valid_embeddings, valid_labels, self.n_classes)
        check_classes(targets, self.n_classes)
        best: Any = None
        for settings, estimator in self._candidates(len(inputs)):
            with warnings.catch_warnings():
                # A perceptron says that it would learn on; the validation part judges it as it is.
                warnings.simplefilter("ignore", ConvergenceWarning)
                estimator.fit(inputs, targets)
            accuracy = float(estimator.score(valid_inputs, valid_targets))
            if best is None or accuracy > self.chosen["accuracy"]:
                best, self.chosen = estimator, {**settings, "accuracy": accuracy}
        self._hold(self._arrays(best, inputs, targets))
        return self

    def forward(self, embeddings: Tensor) -> Tensor:
        """Compute log-probabilities [..., C], float32, of ``embeddings`` [..., E].

        Raises
        ------
        RuntimeError
            If nothing was fitted or loaded before.
        """
        self._check_fitted()
        with torch.autocast(embeddings.device.type, enabled=False):
            flat = embeddings.flatten(end_dim=-2)
            return self._log_probabilities(flat).float().reshape(*embeddings.shape[:-1], self.n_classes)

    def _candidates(self, count: int) -> Iterator[tuple[dict[str, float], Any]]:
        """List settings and estimators to try on ``count`` utterances."""
        raise NotImplementedError

    def _arrays(self, estimator: Any, inputs: Floats, targets: Labels) -> Arrays:
        """Take the buffers out of an estimator that was fitted to ``inputs`` [N, E] and ``targets`` [N]."""
        raise NotImplementedError

    def _log_probabilities(self, inputs: Tensor) -> Tensor:
        """Compute log-probabilities [N, C] of ``inputs`` [N, E]."""
        raise NotImplementedError


class NeighbourClassifier(FittedClassifier):
    """Vote of the nearest neighbours among the training embeddings, as scikit-learn's ``KNeighborsClassifier``.

    Parameters
    ----------
    n_classes : int
        Number of classes C, at least 2.
    neighbours : sequence of int
        Numbers of neighbours to choose from by validation accuracy.

    Example
    -------
    >>> inputs, labels = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]), torch.tensor([0, 0, 1, 1])
    >>> classifier = NeighbourClassifier(2, neighbours=[1]).fit(inputs, labels, inputs, labels)
    >>> classifier(inputs[:, None]).argmax(-1).flatten().tolist()
    [0, 0, 1, 1]
    """

    known: Tensor
    classes: Tensor
    weights: Tensor

    def __init__(self, n_classes: int, neighbours: Sequence[int] = (1, 5, 11, 21, 41)) -> None:
        super().__init__(n_classes, {"known": np.zeros((0, 0)), "classes": np.zeros(0, int), "weights": np.zeros(0)})
        self.neighbours = neighbours

    def _candidates(self, count: int) -> Iterator[tuple[dict[str, float], Any]]:
        from sklearn.neighbors import KNeighborsClassifier  # noqa: PLC0415 — only fitting needs it

        for k in sorted({min(one, count) for one in self.neighbours}):
            yield {"neighbours": k}, KNeighborsClassifier(k, algorithm="brute")

    def _arrays(self, estimator: Any, inputs: Floats, targets: Labels) -> Arrays:
        k = estimator.n_neighbors
        return {"known": inputs, "classes": targets, "weights": np.full(k, 1 / k)}

    def _log_probabilities(self, inputs: Tensor) -> Tensor:
        # By matrix products however few there are: ONNX has no other form.
        distances = torch.cdist(inputs.double(), self.known.double(), compute_mode="use_mm_for_euclid_dist")
        nearest = distances.topk(len(self.weights), largest=False).indices
        votes = functional.one_hot(self.classes[nearest], self.n_classes).to(self.weights)
        return (votes * self.weights.unsqueeze(-1)).sum(1).clamp(min=LEAST).log().log_softmax(-1)


class ForestClassifier(FittedClassifier):
    """Random forest of scikit-learn, its trees held as tables of their nodes.

    Parameters
    ----------
    n_classes : int
        Number of classes C, at least 2.
    trees : int
        Number of trees.
    depth : int
        Decisions on the way to a leaf, at most.
    leaves : sequence of int
        Least numbers of training utterances in a leaf to choose from by validation accuracy.
    seed : int
        Of the bootstrap samples and the features of each decision.

    Example
    -------
    >>> inputs, labels = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]), torch.tensor([0, 0, 1, 1])
    >>> classifier = ForestClassifier(2).fit(inputs, labels, inputs, labels)
    >>> classifier(inputs[:, None]).argmax(-1).flatten().tolist()
    [0, 0, 1, 1]
    """

    roots: Tensor
    feature: Tensor
    threshold: Tensor
    branches: Tensor
    shares: Tensor

    def __init__(
        self, n_classes: int, trees: int = 200, depth: int = 20, leaves: Sequence[int] = (1, 3, 10), seed: int = 0
    ) -> None:
        names = {"roots": (0,), "feature": (0,), "branches": (0, 2)}
        whole: Arrays = {name: np.zeros(shape, int) for name, shape in names.items()}
        super().__init__(n_classes, {**whole, "threshold": np.zeros(0), "shares": np.zeros((0, n_classes))})
        self.trees, self.depth, self.leaves, self.seed = trees, depth, leaves, seed

    def _candidates(self, count: int) -> Iterator[tuple[dict[str, float], Any]]:
        from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415 — only fitting needs it

        options = {"max_depth": self.depth, "random_state": self.seed}
        for least in self.leaves:
            yield {"leaf": least}, RandomForestClassifier(self.trees, min_samples_leaf=least, **options)

    def _arrays(self, estimator: Any, inputs: Floats, targets: Labels) -> Arrays:
        trees = [one.tree_ for one in estimator.estimators_]
        roots = np.cumsum([0, *(tree.node_count for tree in trees[:-1])])
        branches = []
        for root, tree in zip(roots, trees, strict=True):
            both = np.stack([tree.children_left, tree.children_right], axis=1)
            branches.append(root + np.where(both < 0, np.arange(len(both))[:, None], both))  # a leaf leads to itself
        return {
            "roots": roots,
            "feature": np.concatenate([tree.feature for tree in trees]).clip(min=0),
            "threshold": np.concatenate([tree.threshold for tree in trees]),
            "branches": np.concatenate(branches),
            "shares": np.concatenate([tree.value[:, 0] for tree in trees]),
        }

    def _log_probabilities(self, inputs: Tensor) -> Tensor:
        values = inputs.float().double()  # scikit-learn's trees compare values of float32
        nodes = self.roots.expand(len(inputs), -1)
        for _ in range(self.depth):
            right = values.gather(1, self.feature[nodes]) > self.threshold[nodes]
            nodes = self.branches[nodes, right.long()]
        return self.shares[nodes].mean(1).clamp(min=LEAST).log().log_softmax(-1)


class PerceptronClassifier(FittedClassifier):
    """Network of one hidden layer with ReLU, trained by scikit-learn's ``MLPClassifier``.

    Parameters
    ----------
    n_classes : int
        Number of classes C, at least 2.
    hidden_size : int
        Neurons of the hidden layer.
    alpha : sequence of float
        Strengths of the L2 penalty to choose from by validation accuracy.
    seed : int
        Of the initial weights and the order of the utterances.

    Example
    -------
    >>> inputs = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]).repeat(8, 1)
    >>> labels = torch.tensor([0, 0, 1, 1]).repeat(8)
    >>> classifier = PerceptronClassifier(2, alpha=[1e-4]).fit(inputs, labels, inputs, labels)
    >>> classifier(inputs[:4, None]).argmax(-1).flatten().tolist()
    [0, 0, 1, 1]
    """

    hidden: Tensor
    hidden_bias: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(
        self, n_classes: int, hidden_size: int = 128, alpha: Sequence[float] = (1e-4, 1e-1, 1.0, 10.0), seed: int = 0
    ) -> None:
        shapes = {"hidden": (0, 0), "hidden_bias": (0,), "weight": (0, 0), "bias": (0,)}
        super().__init__(n_classes, {name: np.zeros(shape) for name, shape in shapes.items()})
        self.hidden_size, self.alpha, self.seed = hidden_size, alpha, seed

    def _candidates(self, count: int) -> Iterator[tuple[dict[str, float], Any]]:
        from sklearn.neural_network import MLPClassifier  # noqa: PLC0415 — only fitting needs it

        options = {"max_iter": 1000, "random_state": self.seed}
        for alpha in self.alpha:
            yield {"alpha": alpha}, MLPClassifier((self.hidden_size,), alpha=alpha, **options)

    def _arrays(self, estimator: Any, inputs: Floats, targets: Labels) -> Arrays:
        weights = (estimator.coefs_[0], estimator.intercepts_[0], estimator.coefs_[1], estimator.intercepts_[1])
        arrays = dict(zip(("hidden", "hidden_bias", "weight", "bias"), weights, strict=True))
        if self.n_classes == 2:  # scikit-learn has the second class alone
            arrays |= {name: np.concatenate([0 * arrays[name], arrays[name]], -1) for name in ("weight", "bias")}
        return arrays

    def _log_probabilities(self, inputs: Tensor) -> Tensor:
        hidden = torch.relu(inputs.to(self.hidden) @ self.hidden + self.hidden_bias)
        return (hidden @ self.weight + self.bias).log_softmax(-1)


class SelectedClassifier(BufferedClassifier):
    """Select the features of an embedding that depend on the emotion most, standardise them, and classify them.

    The selection is scikit-learn's ``SelectKBest`` by the F statistic of each feature in the training part, which grows
    with the share of its variance that the emotions explain. It looks at each feature alone.

    Parameters
    ----------
    classifier : torch.nn.Module
        A classifier with ``fit``, as `SVMClassifier` or `ForestClassifier`.
    features : int, optional
        Features to select; all of them where not given, or where there are not more.

    Example
    -------
    >>> from ser_plugins import NeighbourClassifier
    >>> inputs, labels = torch.tensor([[0.0, 9.0], [0.1, 1.0], [1.0, 8.0], [0.9, 2.0]]), torch.tensor([0, 0, 1, 1])
    >>> classifier = SelectedClassifier(NeighbourClassifier(2, neighbours=[1]), features=1)
    >>> classifier.fit(inputs, labels, inputs, labels).selected.tolist()
    [0]
    """

    selected: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, classifier: nn.Module, features: int | None = None) -> None:
        if features is not None and features < 1:
            raise InputError(f"features is {features}; give a number of features of 1 or more, or null for all")
        super().__init__({"selected": np.zeros(0, int), "mean": np.zeros(0), "scale": np.zeros(0)})
        self.classifier, self.features = classifier, features

    @property
    def chosen(self) -> dict[str, Any]:
        """What the classifier chose on the validation part."""
        return self.classifier.chosen  # type: ignore[return-value]

    def fit(
        self,
        embeddings: Tensor | ArrayLike,
        labels: Tensor | ArrayLike,
        valid_embeddings: Tensor | ArrayLike,
        valid_labels: Tensor | ArrayLike,
    ) -> SelectedClassifier:
        """Select and standardise by the training part, and fit the classifier; see its own ``fit``."""
        from sklearn.feature_selection import SelectKBest, f_classif  # noqa: PLC0415 — only fitting needs it
        from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

        inputs, targets = examples(embeddings, labels, int(self.classifier.n_classes))  # type: ignore[arg-type]
        selected = np.arange(inputs.shape[1])
        if self.features is not None and self.features < len(selected):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of features that are the same in all utterances; they come last
                selected = SelectKBest(f_classif, k=self.features).fit(inputs, targets).get_support(indices=True)
        scaler = StandardScaler().fit(inputs[:, selected])
        self._hold({"selected": selected, "mean": scaler.mean_, "scale": scaler.scale_})
        parts = [self._standardise(torch.as_tensor(part)) for part in (embeddings, valid_embeddings)]
        self.classifier.fit(parts[0], labels, parts[1], valid_labels)  # type: ignore[operator]
        return self

    def forward(self, embeddings: Tensor) -> Tensor:
        """Compute log-probabilities [..., C] of ``embeddings`` [..., E]."""
        self._check_fitted()
        return self.classifier(self._standardise(embeddings))  # type: ignore[no-any-return]

    def _standardise(self, embeddings: Tensor) -> Tensor:
        return (embeddings.double()[..., self.selected] - self.mean.double()) / self.scale.double()
