"""What the project has, by name."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from ser_plugins.metric.losses import (
    EmotionConstrainedTripletLoss,
    GradedTripletLoss,
    SmoothedCrossEntropy,
    TripletLoss,
)
from ser_plugins.models.encoder import UtteranceEncoder
from ser_plugins.models.feature_cnn import FeatureCNN
from ser_plugins.models.ghostvlad import GhostVLAD, ProjectedGhostVLAD
from ser_plugins.models.mean_pooling import MeanPooling
from ser_plugins.models.se_resnet import SEResNet34
from ser_plugins.models.ssl import SSLBackbone
from ser_plugins.models.thin_resnet import ThinResNet34

MODELS: tuple[type[nn.Module], ...] = (FeatureCNN, SEResNet34, SSLBackbone, ThinResNet34, UtteranceEncoder)
POOLINGS: tuple[type[nn.Module], ...] = (GhostVLAD, MeanPooling, ProjectedGhostVLAD)
LOSSES: tuple[type[nn.Module], ...] = (
    EmotionConstrainedTripletLoss,
    GradedTripletLoss,
    SmoothedCrossEntropy,
    TripletLoss,
)


def list_models() -> list[str]:
    """Names of the networks, sorted: backbones, and what makes embeddings; each is a class of ``ser_plugins``.

    Example
    -------
    >>> list_models()
    ['FeatureCNN', 'SEResNet34', 'SSLBackbone', 'ThinResNet34', 'UtteranceEncoder']
    """
    return _names(MODELS)


def list_poolings() -> list[str]:
    """Names of the poolings, sorted; each is a class of ``ser_plugins``.

    Example
    -------
    >>> list_poolings()
    ['GhostVLAD', 'MeanPooling', 'ProjectedGhostVLAD']
    """
    return _names(POOLINGS)


def list_losses() -> list[str]:
    """Names of the losses, sorted; each is a class of ``ser_plugins``.

    Example
    -------
    >>> list_losses()
    ['EmotionConstrainedTripletLoss', 'GradedTripletLoss', 'SmoothedCrossEntropy', 'TripletLoss']
    """
    return _names(LOSSES)


def list_corpora() -> list[str]:
    """Names of the readers of corpora, sorted; each is a class of ``ser_plugins.corpora``.

    Example
    -------
    >>> list_corpora()
    ['CremaD', 'Demo', 'Merged', 'Ravdess', 'SpeakerFolders', 'Table']
    """
    from ser_plugins import corpora  # noqa: PLC0415 — a network needs no pandas

    return sorted(corpora.__all__)


def _names(classes: Iterable[type]) -> list[str]:
    return sorted(one.__name__ for one in classes)
