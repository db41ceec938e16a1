"""The loss of a strategy: a metric loss of the embeddings, a classification loss, their sum, or one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ser_plugins.distributed import total
from ser_plugins.errors import InputError
from ser_plugins.training.centering import SpeakerCentering
from ser_plugins.training.mixup import Mixup
from ser_plugins.training.modules import has_weights

CHUNK = 512  # utterances of a metric loss in validation: its memory grows with their square


class Objective:
    """Sum a metric loss and a classification loss, as far as they apply, or apply one after the other.

    Parameters
    ----------
    metric_loss : callable, optional
        ``(embeddings [B, 1, E], labels [B]) -> loss``, as `ser_plugins.TripletLoss`.
    classification_loss : callable
        ``(log-probabilities [B, C], labels [B]) -> loss``; applies to a classifier with weights.
    mixup : Mixup
        Mixup of the batch, whose shares weight the losses of both labels.
    classification_share : float
        Share of the epochs, at first, that have the classification loss alone; the others have the metric loss alone.
        With 0, all epochs have both.

    Attributes
    ----------
    classifies, measures : bool
        Whether the epoch has a classification loss and a metric loss; `begin_epoch` sets them.

    Example
    -------
    >>> from ser_plugins import SoftmaxClassifier
    >>> objective = Objective(None, functional.nll_loss, Mixup(None))
    >>> loss, scores = objective(torch.randn(4, 1, 8), torch.tensor([0, 1, 2, 0]), SoftmaxClassifier(8, 3))
    >>> loss.shape, scores.shape
    (torch.Size([]), torch.Size([4, 3]))
    """

    def __init__(
        self,
        metric_loss: Callable[[Tensor, Tensor], Tensor] | None,
        classification_loss: Callable[[Tensor, Tensor], Tensor],
        mixup: Mixup,
        classification_share: float = 0.0,
    ) -> None:
        self.metric_loss = metric_loss
        self.classification_loss = classification_loss
        self.mixup = mixup
        self.classification_share = classification_share
        self.begin_epoch(1, 1)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Select the losses of an epoch, which counts from 1, of ``epochs``."""
        first = epoch <= int(self.classification_share * epochs)
        self.measures = self.metric_loss is not None and not first
        self.classifies = first or not self.classification_share

    def __call__(
        self, embeddings: Tensor, labels: Tensor, classifier: nn.Module, train: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return the loss and, of a classifier with weights, its log-probabilities [B, C]."""
        loss = torch.zeros((), device=embeddings.device)
        if self.metric_loss is not None and self.measures:
            size = len(embeddings) if train else CHUNK
            parts = zip(torch.split(embeddings, size), torch.split(labels, size), strict=True)
            loss = loss + torch.stack([self.metric_loss(*part) for part in parts]).mean()
        if not (self.classifies and has_weights(classifier)):
            return loss, None
        scores = classifier(embeddings, *((labels,) if train else ())).squeeze(1)
        mixup = self.mixup if train else Mixup(None)
        return loss + mixup.loss(self.classification_loss, scores, labels), scores

    def statistics(self) -> dict[str, float]:
        """Statistics of the last batch's triplets, if the metric loss has any."""
        if not self.measures:
            return {}
        return {name: float(value) for name, value in getattr(self.metric_loss, "statistics", {}).items()}


def nearest_centroids(embeddings: Tensor, known: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Score embeddings [N, 1, E] by the cosine of each class centroid, [N, C].

    A centroid is the mean direction of the ``known`` embeddings [M, 1, E] of a class, by their ``labels`` [M], over all
    processes.
    """
    one, other = (functional.normalize(part.squeeze(1).float(), dim=-1) for part in (embeddings, known))
    members = functional.one_hot(labels, max(n_classes, int(labels.max()) + 1)).float()
    return one @ functional.normalize(total(members.T @ other), dim=-1).T


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Share of ``scores`` [B, C] that are highest for the label [B].

    Example
    -------
    >>> accuracy(torch.tensor([[0.9, 0.1], [0.8, 0.2]]), torch.tensor([0, 1]))
    0.5
    """
    return float((scores.argmax(-1) == labels).float().mean())


def check_settings(hparams: Mapping[str, Any]) -> None:
    """Check settings of a Brain before anything is trained.

    Raises
    ------
    InputError
        If one is of no use, or two exclude each other; the message names them.
    """
    mixup, schedule = hparams.get("mixup"), hparams.get("lr_schedule")
    try:
        Mixup(mixup)
        centered = SpeakerCentering(hparams.get("speaker_normalization", "none")).active
    except ValueError as error:
        raise InputError(str(error)) from error
    if not (schedule is None or callable(schedule)):
        remedy = "give !new:ser_plugins.training.StepSchedule or CosineSchedule"
        raise InputError(f"lr_schedule: {schedule!r} is no schedule; {remedy}")
    share = hparams.get("classification_share", 0)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
        raise InputError(f"classification_share: {share!r} is not allowed; give a number from 0 to less than 1")
    if share and hparams.get("metric_loss") is None:
        raise InputError("classification_share comes before a metric loss, and there is none; give a metric_loss, or 0")
    if mixup is not None and hparams.get("metric_loss") is not None and not share:
        raise InputError("mixup mixes two labels, and a metric loss needs one of each utterance; give --mixup null")
    if mixup is not None and centered:
        raise InputError("mixup mixes speakers, and the mean embedding of each is subtracted; give --mixup null")
    for name in ("backbone_lr_factor", "frozen_epochs"):
        value = hparams.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise InputError(f"{name}: {value!r} is not allowed; give a number of at least 0")
    passes = hparams.get("fit_passes", 0)
    if isinstance(passes, bool) or not isinstance(passes, int) or passes < 0:
        raise InputError(f"fit_passes: {passes!r} is not allowed; give a whole number of at least 0")
