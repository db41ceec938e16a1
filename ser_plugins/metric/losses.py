"""Losses: the triplet loss and constraints by emotion on embeddings, smoothed cross-entropy on classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from ser_plugins.distributed import gather
from ser_plugins.errors import InputError
from ser_plugins.metric.distance import pairwise_distances
from ser_plugins.metric.mining import semi_hard
from ser_plugins.metric.wheel import emotion_distances, polarity_ids


class MetricLoss(nn.Module):
    """What the metric losses share: shapes, precision, and the statistics of the last batch.

    A subclass writes ``compute``. Triplets are formed within the batch that is given. Under torch.distributed, where
    gradients are asked for, it is the batch of all processes, and the loss theirs: the average of the gradients that
    DDP takes is that of one process with the whole batch.

    Attributes
    ----------
    statistics : dict
        Of the last forward: ``norm``, the mean norm of the embeddings before they are normalised; for each constraint
        ``<name>_triplets``, how many were mined, and ``<name>_active``, the share of them still within the margin.
    """

    def __init__(self, squared: bool = False) -> None:
        super().__init__()
        self.squared = squared
        self.statistics: dict[str, float | torch.Tensor] = {}

    def forward(
        self, embeddings: torch.Tensor, labels: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Compute the loss of a mini-batch.

        Arguments
        ---------
        embeddings : torch.Tensor
            [B, E] or [B, 1, E], any floating-point type; float32 inside (float64 stays).
        labels : torch.Tensor
            [B] or [B, 1], class indices.
        lengths : torch.Tensor, optional
            Changes nothing; SpeechBrain's recipes give every loss the relative lengths.

        Returns
        -------
        torch.Tensor
            Scalar; a zero with zero gradients where the batch holds no triplet, NaN where an embedding does.

        Raises
        ------
        InputError
            The shapes are others, or the labels are not whole numbers.
        """
        embeddings, labels = _flatten(embeddings, labels)
        if torch.is_grad_enabled():
            embeddings, labels = gather(embeddings), gather(labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            exact = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
            self.statistics = {"norm": exact.detach().norm(dim=-1).mean()}
            loss = self.compute(pairwise_distances(exact, self.squared), labels)
            # The zero ties a batch without triplets to the graph and lets no NaN hide outside of the triplets.
            return loss + 0 * exact.sum()

    def compute(self, distances: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the loss from the distances [B, B] and the class indices [B]."""
        raise NotImplementedError

    def hinge(
        self, name: str, distances: torch.Tensor, near: torch.Tensor, far: torch.Tensor, margin: float | torch.Tensor
    ) -> torch.Tensor:
        """Mean of max(0, D(anchor, near) + margin − D(anchor, far)) over the triplets that ``semi_hard`` finds.

        ``near`` and ``far`` are the masks [B, B] of what may stand in these places, ``margin`` a number, or one for
        each (anchor, far), [B, B]; no triplet gives zero.
        """
        anchor_ids, near_ids, far_ids = semi_hard(distances, near, far)
        margins = torch.as_tensor(margin, dtype=distances.dtype, device=distances.device).expand_as(distances)
        reach = distances[anchor_ids, near_ids] + margins[anchor_ids, far_ids]
        terms = (reach - distances[anchor_ids, far_ids]).relu()
        count = max(len(terms), 1)
        self.statistics[f"{name}_triplets"] = float(len(terms))
        self.statistics[f"{name}_active"] = (terms.detach() > 0).sum() / count
        return terms.sum() / count


class TripletLoss(MetricLoss):
    """Triplet loss with semi-hard mining inside the mini-batch (strategy S4).

    The mean of max(0, D(a, p) + α − D(a, n)) over the mined triplets: one for each pair (a, p) of the same emotion,
    with n of any other (Mocanu et al. 2021, Section 3.3). D is the Euclidean distance of normalised embeddings.

    Arguments
    ---------
    margin : float
        The paper's α.
    squared : bool
        Take squared distances, as FaceNet does.

    Example
    -------
    >>> loss = TripletLoss(margin=0.1)
    >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> round(loss(embeddings, torch.tensor([0, 0, 1])).item(), 4)  # the second anchor: √2 + 0.1 − √2; the first: 0
    0.05
    >>> loss.statistics["triplet_triplets"], loss.statistics["triplet_active"].item()
    (2.0, 0.5)
    """

    def __init__(self, margin: float = 0.1, squared: bool = False) -> None:
        super().__init__(squared)
        self.margin = margin

    def compute(self, distances: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the loss from the distances [B, B] and the class indices [B]."""
        same = labels[:, None] == labels
        return self.hinge("triplet", distances, _off_diagonal(same), ~same, self.margin)


class EmotionConstrainedTripletLoss(MetricLoss):
    """Triplet loss that also orders emotions by their polarity (strategy S5; Mocanu et al. 2021, Eqs. 5–7).

    For an anchor a, a positive p is of the same emotion, a related r of another emotion of the same polarity, a
    negative n of another polarity. The loss is the sum of the mean hinges of

        D(a, p) + α < D(a, r)        (Eq. 5)
        D(a, r) + β < D(a, n)        (Eq. 6)

    over the mined triplets: each pair (a, p) has its semi-hard r, each pair (a, r) its semi-hard n. D is the Euclidean
    distance of normalised embeddings.

    The paper leaves one case open: an emotion alone in its polarity, as neutral is, has no related one. For its anchors
    one plain triplet, D(a, p) + α < D(a, n) with n of any other emotion, takes the place of both constraints and counts
    among the first. The set of labels decides this: an emotion that has related ones, of which a batch holds none, has
    no triplet in that batch.

    Arguments
    ---------
    labels : sequence of str
        Emotions, in the order of their class indices.
    polarity : mapping of str to str, optional
        Label to polarity, before the wheel's (see ``polarity_ids``).
    alpha : float
        Margin between the same and a related emotion; the paper's best, for both corpora.
    beta : float
        Margin between a related and a negative emotion; the same.
    squared : bool
        Take squared distances.

    Raises
    ------
    InputError
        A label has no polarity.

    Example
    -------
    >>> loss = EmotionConstrainedTripletLoss(["angry", "sad", "happy", "neutral"])
    >>> embeddings = torch.randn(8, 1, 16, requires_grad=True)
    >>> loss(embeddings, torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])).backward()
    >>> sorted(loss.statistics)
    ['emotion_active', 'emotion_triplets', 'norm', 'polarity_active', 'polarity_triplets']
    """

    polarity: torch.Tensor
    has_related: torch.Tensor

    def __init__(
        self,
        labels: Sequence[str],
        polarity: Mapping[str, str] | None = None,
        alpha: float = 0.1,
        beta: float = 0.15,
        squared: bool = False,
    ) -> None:
        super().__init__(squared)
        self.alpha = alpha
        self.beta = beta
        ids = polarity_ids(labels, polarity)
        self.register_buffer("polarity", ids, persistent=False)
        self.register_buffer("has_related", (ids[:, None] == ids).sum(dim=1) > 1, persistent=False)

    def compute(self, distances: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the loss from the distances [B, B] and the class indices [B]."""
        # A loss outside of Brain's modules is not moved to the device: the two small tables follow the labels.
        polarity = self.polarity.to(labels.device)[labels]
        has_related = self.has_related.to(labels.device)[labels]
        same = labels[:, None] == labels
        negative = polarity[:, None] != polarity
        related = ~same & ~negative
        beyond_same = torch.where(has_related[:, None], related, negative)
        emotion = self.hinge("emotion", distances, _off_diagonal(same), beyond_same, self.alpha)
        return emotion + self.hinge("polarity", distances, related, negative, self.beta)


class GradedTripletLoss(MetricLoss):
    """Triplet loss whose margin grows with how far the two emotions are apart in valence and arousal.

    The mean of max(0, D(a, p) + m · d(a, n) − D(a, n)) over the triplets of ``TripletLoss``, d the distance of the
    emotions of a and n in parts of the largest one of the label set (see ``emotion_distances``). The paper's constraint
    knows two steps, related or not; this one orders all pairs, neutral's too, and takes the coordinates from ratings.
    Emotions close in both are hardly held apart: angry and fearful by 0.08 m.

    Arguments
    ---------
    labels : sequence of str
        Emotions, in the order of their class indices.
    coordinates : mapping of str to (float, float), optional
        Label to valence and arousal, before those of ``COORDINATES``.
    margin : float
        m, the margin between the two emotions that are farthest apart; by default α + β, what the paper's best values
        put between an emotion and one of another polarity.
    squared : bool
        Take squared distances D.

    Raises
    ------
    InputError
        A label has no coordinates.

    Example
    -------
    >>> loss = GradedTripletLoss(["neutral", "happy", "sad"], margin=0.2)
    >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    >>> round(loss(embeddings, torch.tensor([1, 1, 2])).item(), 4)  # happy and sad are farthest apart
    0.2
    >>> round(loss(embeddings, torch.tensor([1, 1, 0])).item(), 4)
    0.1169
    """

    def __init__(
        self,
        labels: Sequence[str],
        coordinates: Mapping[str, Sequence[float]] | None = None,
        margin: float = 0.25,
        squared: bool = False,
    ) -> None:
        super().__init__(squared)
        self.margins = margin * emotion_distances(labels, coordinates)

    def compute(self, distances: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the loss from the distances [B, B] and the class indices [B]."""
        same = labels[:, None] == labels
        # A loss outside of Brain's modules is not moved to the device: the small table follows the distances.
        margins = self.margins.to(distances)[labels[:, None], labels]
        return self.hinge("triplet", distances, _off_diagonal(same), ~same, margins)


class SmoothedCrossEntropy(nn.Module):
    """Cross-entropy with a share ε of each target spread over all classes, by their prior.

    ``−Σ_c ((1 − ε) [c = y] + ε prior(c)) log p(c)``, averaged over the batch. With the classes' shares of the training
    part as the prior it is unigram label smoothing (Pereyra et al., ICLR 2017 workshop; Huang et al., Interspeech
    2020), which keeps frequent classes likely where the speech tells little.

    Arguments
    ---------
    prior : sequence of float, optional
        Share of each class, in any unit: they are divided by their sum. Uniform where not given, which is PyTorch's
        own ``label_smoothing``.
    smoothing : float
        ε, from 0 to 1.

    Raises
    ------
    InputError
        The prior is no distribution, or ε no share.

    Example
    -------
    >>> loss = SmoothedCrossEntropy([0.75, 0.25], smoothing=0.2)
    >>> log_probabilities = torch.tensor([[0.5, 0.5]]).log()
    >>> round(loss(log_probabilities, torch.tensor([0])).item(), 4)
    0.6931
    """

    def __init__(self, prior: Sequence[float] | None = None, smoothing: float = 0.1) -> None:
        super().__init__()
        if not 0 <= smoothing <= 1:
            raise InputError(f"smoothing is {smoothing}; give a share from 0 to 1")
        if prior is not None and (min(prior) < 0 or sum(prior) <= 0):
            raise InputError(f"prior is {list(prior)}; give the share of each class, none of them negative")
        self.smoothing = smoothing
        self.prior = None if prior is None else torch.tensor(prior, dtype=torch.float32) / sum(prior)

    def forward(
        self, log_probabilities: torch.Tensor, labels: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Compute the loss, a scalar.

        Arguments
        ---------
        log_probabilities : torch.Tensor
            [B, C] or [B, 1, C].
        labels : torch.Tensor
            [B] or [B, 1], class indices.
        lengths : torch.Tensor, optional
            Changes nothing; SpeechBrain's recipes give every loss the relative lengths.
        """
        log_probabilities, labels = log_probabilities.flatten(0, -2), labels.flatten()
        n_classes = log_probabilities.shape[1]
        if self.prior is not None and len(self.prior) != n_classes:
            raise InputError(f"a prior of {len(self.prior)} classes for {n_classes}; give one share a class")
        prior = log_probabilities.new_full((n_classes,), 1 / n_classes) if self.prior is None else self.prior
        # A loss outside of Brain's modules is not moved to the device: the prior follows the scores.
        spread = -(log_probabilities @ prior.to(log_probabilities)).mean()
        return (1 - self.smoothing) * functional.nll_loss(log_probabilities, labels) + self.smoothing * spread


def _off_diagonal(mask: torch.Tensor) -> torch.Tensor:
    """Take the diagonal out of a square mask: no utterance is its own positive."""
    return mask & ~torch.eye(len(mask), dtype=torch.bool, device=mask.device)


def _flatten(embeddings: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring embeddings to [B, E] and labels to [B], on one device."""
    flat = embeddings.squeeze(1) if embeddings.dim() == 3 else embeddings
    flat_labels = labels.squeeze(1) if labels.dim() == 2 else labels
    if flat.dim() != 2 or flat_labels.shape != flat.shape[:1]:
        shapes = f"{list(embeddings.shape)} and {list(labels.shape)}"
        raise InputError(f"embeddings and labels have the shapes {shapes}; give [B, E] or [B, 1, E], and [B] or [B, 1]")
    if flat_labels.is_floating_point() or flat_labels.is_complex():
        raise InputError(f"labels are {labels.dtype}; give class indices (torch.long)")
    return flat, flat_labels.to(device=flat.device, dtype=torch.long)
