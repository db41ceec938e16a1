"""The classes of each kind of plugin, by name: the tests of their contract and safe loading go through these."""

from __future__ import annotations

from torch import nn

from ser_plugins.metric.losses import (
    ContrastiveLoss,
    EmotionConstrainedTripletLoss,
    GradedTripletLoss,
    SmoothedCrossEntropy,
    TripletLoss,
)
from ser_plugins.models.attentive_pooling import AttentivePooling
from ser_plugins.models.campplus import CAMPPlus
from ser_plugins.models.encoder import UtteranceEncoder
from ser_plugins.models.feature_cnn import FeatureCNN
from ser_plugins.models.ghostvlad import GhostVLAD, ProjectedGhostVLAD
from ser_plugins.models.joint import JointBackbone
from ser_plugins.models.lstm import LSTMBackbone
from ser_plugins.models.mean_pooling import MeanPooling
from ser_plugins.models.patch_encoder import PatchEncoder
from ser_plugins.models.se_resnet import SEResNet34
from ser_plugins.models.ssl import SSLBackbone
from ser_plugins.models.statistics_pooling import StatisticsPooling
from ser_plugins.models.thin_resnet import ThinResNet34


def _by_name(*classes: type[nn.Module]) -> dict[str, type[nn.Module]]:
    return {one.__name__: one for one in classes}


MODELS = _by_name(
    *(CAMPPlus, FeatureCNN, JointBackbone, LSTMBackbone, PatchEncoder),
    *(SEResNet34, SSLBackbone, ThinResNet34, UtteranceEncoder),
)
POOLINGS = _by_name(AttentivePooling, GhostVLAD, MeanPooling, ProjectedGhostVLAD, StatisticsPooling)
LOSSES = _by_name(ContrastiveLoss, EmotionConstrainedTripletLoss, GradedTripletLoss, SmoothedCrossEntropy, TripletLoss)
