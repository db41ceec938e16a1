"""Losses: the triplet loss and constraints by emotion on embeddings, smoothed cross-entropy on classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from ser_plugins.distributed import gather
from ser_plugins.errors import InputError
from ser_plugins.metric.distance import pairwise_distances
from ser_plugins.metric.mining import Triplets, as_triplets, semi_hard
from ser_plugins.metric.wheel import Labels, are_names, emotion_distances, label_names, polarity_ids


class MetricLoss(nn.Module):
    """What the metric losses share: shapes, precision, and the statistics of the last batch.

    A subclass writes ``compute``. Triplets are formed within the batch. In training under torch.distributed, this is
    the batch of all processes. The average of the gradients, which DDP computes, is then the gradient that one process
    has for the whole batch.

    Attributes
    ----------
    statistics : dict
        Statistics of the last batch. ``norm`` is the mean norm of the embeddings before they are normalised. Each
        constraint has ``<name>_triplets``, the number of its triplets, and ``<name>_active``, the share of them that
        is within the margin.
    """

    def __init__(self, squared: bool = False) -> None:
        super().__init__()
        self.squared = squared
        self.statistics: dict[str, float | torch.Tensor] = {}

    def forward(
        self,
        embeddings: torch.Tensor,
        labels: torch.Tensor,
        lengths: torch.Tensor | Sequence[torch.Tensor] | None = None,
        indices_tuple: Sequence[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Compute the loss of a mini-batch.

        Arguments
        ---------
        embeddings : torch.Tensor
            [B, E] or [B, 1, E], any floating-point type; float32 inside (float64 stays).
        labels : torch.Tensor
            [B] or [B, 1], class indices.
        lengths : torch.Tensor, optional
            Ignored; SpeechBrain's recipes give every loss the relative lengths. A tuple is read as ``indices_tuple``,
            which pytorch-metric-learning gives at this position.
        indices_tuple : sequence of torch.Tensor, optional
            Triplets or pairs that a miner of pytorch-metric-learning chose (see ``as_triplets``). They replace the
            semi-hard triplets. Under torch.distributed the indices refer to the batch of this process.
            ``DistributedMinerWrapper`` appends the batches of the others.

        Returns
        -------
        torch.Tensor
            Scalar. It is zero with zero gradients if the batch has no triplet, and NaN if an embedding is NaN.

        Raises
        ------
        InputError
            If the shapes do not fit, or a label is not a class index.
        """
        if isinstance(lengths, tuple | list):
            indices_tuple = lengths
        embeddings, labels = _flatten(embeddings, labels)
        check_labels(labels, self.class_count())
        if torch.is_grad_enabled():
            own_first = indices_tuple is not None
            embeddings, labels = gather(embeddings, own_first), gather(labels, own_first)
        triplets = None if indices_tuple is None else as_triplets(indices_tuple, labels.device)
        with torch.autocast(embeddings.device.type, enabled=False):
            exact = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
            self.statistics = {"norm": exact.detach().norm(dim=-1).mean()}
            loss = self.compute(pairwise_distances(exact, self.squared), labels, triplets)
            # Adding zero gives a batch without triplets a gradient, and a NaN in any embedding a NaN loss.
            return loss + 0 * exact.sum()

    def class_count(self) -> int | None:
        """Return the number of classes; None if any class index is allowed."""
        return None

    def compute(self, distances: torch.Tensor, labels: torch.Tensor, triplets: Triplets | None) -> torch.Tensor:
        """Compute the loss from the distances [B, B], the class indices [B] and the triplets of a miner, if any."""
        raise NotImplementedError

    def hinge(
        self,
        name: str,
        distances: torch.Tensor,
        near: torch.Tensor,
        far: torch.Tensor,
        margin: float | torch.Tensor,
        triplets: Triplets | None = None,
    ) -> torch.Tensor:
        """Mean of max(0, D(anchor, near) + margin − D(anchor, far)) over triplets.

        The masks ``near`` and ``far`` [B, B] say which utterances may be a triplet's near and far one. ``margin`` is a
        number, or one for each (anchor, far), [B, B]. The given triplets count if the masks allow them. If none are
        given, ``semi_hard`` finds them. No triplet gives zero.
        """
        anchor_ids, near_ids, far_ids = self.mine(distances, near, far, triplets)
        margins = torch.as_tensor(margin, dtype=distances.dtype, device=distances.device).expand_as(distances)
        reach = distances[anchor_ids, near_ids] + margins[anchor_ids, far_ids]
        terms = (reach - distances[anchor_ids, far_ids]).relu()
        self.count(name, terms)
        return terms.sum() / max(len(terms), 1)

    def mine(
        self, distances: torch.Tensor, near: torch.Tensor, far: torch.Tensor, triplets: Triplets | None = None
    ) -> Triplets:
        """Return the triplets to train on: those given that the masks of `hinge` allow, or those of ``semi_hard``."""
        if triplets is None:
            return semi_hard(distances, near, far)
        anchor_ids, near_ids, far_ids = triplets
        allowed = near[anchor_ids, near_ids] & far[anchor_ids, far_ids]
        return anchor_ids[allowed], near_ids[allowed], far_ids[allowed]

    def count(self, name: str, terms: torch.Tensor) -> None:
        """Record how many triplets have a hinge, ``terms`` [N], and the share of those that are not zero."""
        self.statistics[f"{name}_triplets"] = float(len(terms))
        self.statistics[f"{name}_active"] = (terms.detach() > 0).sum() / max(len(terms), 1)


class TripletLoss(MetricLoss):
    """Triplet loss with semi-hard mining inside the mini-batch (strategy S4).

    The loss is the mean of max(0, D(a, p) + α − D(a, n)) over the mined triplets (Mocanu et al. 2021, Section 3.3).
    Each pair (a, p) of one emotion has one triplet, whose n has any other emotion. D is the Euclidean distance of
    normalised embeddings.

    Arguments
    ---------
    margin : float
        α in the paper; not negative.
    squared : bool
        Take squared distances, as FaceNet does.

    Raises
    ------
    InputError
        The margin is negative.

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
        self.margin = check_margin("margin", margin)

    def compute(self, distances: torch.Tensor, labels: torch.Tensor, triplets: Triplets | None) -> torch.Tensor:
        """Compute the loss: triplets of two of one emotion and one of any other."""
        same = labels[:, None] == labels
        return self.hinge("triplet", distances, _off_diagonal(same), ~same, self.margin, triplets)


class ContrastiveLoss(MetricLoss):
    """Contrastive loss of pairs, as a Siamese network is trained.

    The loss is the mean of D(a, p)² + max(0, m − D(a, n))² over the triplets of `TripletLoss`. It pulls each pair (a,
    p) of one emotion together, and pushes a pair (a, n) of two emotions apart to the distance m. D is the Euclidean
    distance of normalised embeddings. Hadsell, Chopra and LeCun, CVPR 2006; for emotions Lian, Li, Tao and Huang,
    ASMMC-MMAC 2018.

    Arguments
    ---------
    margin : float
        m, not negative; distances are 2 at most.

    Raises
    ------
    InputError
        The margin is negative.

    Example
    -------
    >>> loss = ContrastiveLoss(margin=1.5)
    >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> round(loss(embeddings, torch.tensor([0, 0, 1])).item(), 4)  # 2 + 0 and 2 + (1.5 − √2)²
    2.0037
    >>> loss.statistics["contrastive_triplets"], loss.statistics["contrastive_active"].item()
    (2.0, 0.5)
    """

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = check_margin("margin", margin)

    def compute(self, distances: torch.Tensor, labels: torch.Tensor, triplets: Triplets | None) -> torch.Tensor:
        """Compute the loss: as many pairs of one emotion as of two."""
        same = labels[:, None] == labels
        anchor_ids, near_ids, far_ids = self.mine(distances, _off_diagonal(same), ~same, triplets)
        lacking = (self.margin - distances[anchor_ids, far_ids]).relu()
        self.count("contrastive", lacking)
        terms = distances[anchor_ids, near_ids].square() + lacking.square()
        return terms.sum() / max(len(terms), 1)


class EmotionConstrainedTripletLoss(MetricLoss):
    """Triplet loss that also orders emotions by their polarity (strategy S5; Mocanu et al. 2021, Eqs. 5–7).

    An anchor a and a positive p have the same emotion. A related utterance r has another emotion of the same polarity,
    and a negative n has another polarity. The loss is the sum of the mean hinges of

        D(a, p) + α < D(a, r)        (Eq. 5)
        D(a, r) + β < D(a, n)        (Eq. 6)

    over the mined triplets: each pair (a, p) has its semi-hard r, each pair (a, r) its semi-hard n. D is the Euclidean
    distance of normalised embeddings.

    The paper leaves one case open: an emotion that is alone in its polarity, such as neutral, has no related one. Its
    anchors have one triplet, D(a, p) + α < D(a, n) with n of any other emotion, which replaces both constraints and is
    counted with the first. The set of labels decides this. If a batch lacks the related emotions of an anchor, the
    anchor has no triplet in it.

    If a miner gives triplets (``indices_tuple``), Eq. 5 uses those whose negative is related, and all triplets of an
    emotion that is alone. Eq. 6 forms semi-hard triplets of the miner's negatives of one anchor.

    Arguments
    ---------
    labels : sequence of str, path or encoder
        Emotions, in the order of their class indices. A ``CategoricalEncoder`` of SpeechBrain, or the path of its
        ``label_encoder.txt``, is read at the first batch.
    polarity : mapping of str to str, optional
        Label to polarity, before the wheel's (see ``polarity_ids``).
    alpha : float
        Margin between the same and a related emotion; not negative. The default is the paper's best on both corpora.
    beta : float
        Margin between a related and a negative emotion; not negative. The default is the paper's best, as for alpha.
    squared : bool
        Take squared distances.

    Raises
    ------
    InputError
        If a label has no polarity or occurs twice, ``polarity`` has an unknown label, or a margin is negative.

    Example
    -------
    >>> loss = EmotionConstrainedTripletLoss(["angry", "sad", "happy", "neutral"])
    >>> embeddings = torch.randn(8, 1, 16, requires_grad=True)
    >>> loss(embeddings, torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])).backward()
    >>> sorted(loss.statistics)
    ['emotion_active', 'emotion_triplets', 'norm', 'polarity_active', 'polarity_triplets']
    """

    polarity: torch.Tensor | None

    def __init__(
        self,
        labels: Labels,
        polarity: Mapping[str, str] | None = None,
        alpha: float = 0.1,
        beta: float = 0.15,
        squared: bool = False,
    ) -> None:
        super().__init__(squared)
        self.alpha = check_margin("alpha", alpha)
        self.beta = check_margin("beta", beta)
        self.labels = labels
        self.given = polarity
        self.register_buffer("polarity", polarity_ids(labels, polarity) if are_names(labels) else None, False)

    def class_count(self) -> int:
        """Return the number of emotions."""
        if self.polarity is None:
            self.polarity = polarity_ids(label_names(self.labels), self.given)
        return len(self.polarity)

    def compute(self, distances: torch.Tensor, labels: torch.Tensor, triplets: Triplets | None) -> torch.Tensor:
        """Compute the loss: the sum of the two constraints."""
        assert self.polarity is not None
        # A loss outside of Brain's modules is not moved to the device: the small table follows the labels.
        ids = self.polarity.to(labels.device)
        polarity, has_related = ids[labels], ((ids[:, None] == ids).sum(1) > 1)[labels]
        same = labels[:, None] == labels
        negative = polarity[:, None] != polarity
        related = ~same & ~negative
        beyond_same = torch.where(has_related[:, None], related, negative)
        emotion = self.hinge("emotion", distances, _off_diagonal(same), beyond_same, self.alpha, triplets)
        if triplets is not None:
            mined = torch.zeros_like(same)
            mined[triplets[0], triplets[2]] = True
            related, negative = related & mined, negative & mined
        return emotion + self.hinge("polarity", distances, related, negative, self.beta)


class GradedTripletLoss(MetricLoss):
    """Triplet loss whose margin grows with how far the two emotions are apart in valence and arousal.

    The loss is the mean of max(0, D(a, p) + m · d(a, n) − D(a, n)) over the triplets of ``TripletLoss``. The
    distance d of two emotions is divided by the largest distance in the label set (see ``emotion_distances``). The
    paper's constraint has two steps, related or not. This loss orders all pairs, including those of neutral, and takes
    the coordinates from ratings. The margin between similar emotions is small: 0.08 m between angry and fearful.

    Arguments
    ---------
    labels : sequence of str, path or encoder
        As of `EmotionConstrainedTripletLoss`.
    coordinates : mapping of str to (float, float), optional
        Label to valence and arousal, before those of ``COORDINATES``.
    margin : float
        m, the margin between the two emotions that are farthest apart; not negative. The default is α + β, the margin
        between two polarities at the paper's best values.
    squared : bool
        Take squared distances D.

    Raises
    ------
    InputError
        If a label has no coordinates or occurs twice, or the margin is negative.

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
        labels: Labels,
        coordinates: Mapping[str, Sequence[float]] | None = None,
        margin: float = 0.25,
        squared: bool = False,
    ) -> None:
        super().__init__(squared)
        self.margin = check_margin("margin", margin)
        self.labels = labels
        self.given = coordinates
        self.distances = emotion_distances(labels, coordinates) if are_names(labels) else None

    def class_count(self) -> int:
        """Return the number of emotions."""
        if self.distances is None:
            self.distances = emotion_distances(label_names(self.labels), self.given)
        return len(self.distances)

    def compute(self, distances: torch.Tensor, labels: torch.Tensor, triplets: Triplets | None) -> torch.Tensor:
        """Compute the loss: triplets of two of one emotion and one of any other, each of its own margin."""
        assert self.distances is not None
        same = labels[:, None] == labels
        # A loss outside of Brain's modules is not moved to the device: the small table follows the distances.
        margins = self.margin * self.distances.to(distances)[labels[:, None], labels]
        return self.hinge("triplet", distances, _off_diagonal(same), ~same, margins, triplets)


class SmoothedCrossEntropy(nn.Module):
    """Cross-entropy with a share ε of each target spread over all classes, by their prior.

    The loss is ``−Σ_c ((1 − ε) [c = y] + ε prior(c)) log p(c)``, averaged over the batch. If the prior has the shares
    of the classes in the training part, this is unigram label smoothing (Pereyra et al., ICLR 2017 workshop; Huang et
    al., Interspeech 2020). It favours frequent classes if the speech is ambiguous.

    Arguments
    ---------
    prior : sequence of float, optional
        Share of each class; the shares are divided by their sum. The default is uniform, as in PyTorch's
        ``label_smoothing``.
    smoothing : float
        ε, from 0 to 1.

    Raises
    ------
    InputError
        If the prior is not a distribution, or ε is not a share.

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
            Ignored; SpeechBrain's recipes give every loss the relative lengths.

        Raises
        ------
        InputError
            If a label is not a class index, or the prior has another number of classes.
        """
        log_probabilities, labels = log_probabilities.flatten(0, -2), labels.flatten()
        n_classes = log_probabilities.shape[1]
        check_labels(labels, n_classes)
        if self.prior is not None and len(self.prior) != n_classes:
            raise InputError(f"a prior of {len(self.prior)} classes for {n_classes}; give one share a class")
        prior = log_probabilities.new_full((n_classes,), 1 / n_classes) if self.prior is None else self.prior
        # A loss outside of Brain's modules is not moved to the device: the prior follows the scores.
        spread = -(log_probabilities @ prior.to(log_probabilities)).mean()
        return (1 - self.smoothing) * functional.nll_loss(log_probabilities, labels) + self.smoothing * spread


def check_margin(name: str, margin: float) -> float:
    """Return the margin; InputError where it is negative or no number."""
    if not margin >= 0:
        raise InputError(f"{name} is {margin}; give a margin of 0 or more")
    return margin


def check_labels(labels: torch.Tensor, n_classes: int | None) -> None:
    """Raise InputError, naming the value, where a label [B] is negative or not less than ``n_classes``."""
    strange = labels[(labels < 0) | (labels >= n_classes)] if n_classes is not None else labels[labels < 0]
    if len(strange):
        which = "class indices are 0 or more" if n_classes is None else f"class indices are 0 to {n_classes - 1}"
        raise InputError(f"label {int(strange[0])} is no class: {which}; leave utterances without a label out")


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
