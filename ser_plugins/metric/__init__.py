"""Relations between emotions, mining, losses and balanced batches."""

from ser_plugins.metric.distance import neighbour_errors, pairwise_distances
from ser_plugins.metric.losses import (
    ContrastiveLoss,
    EmotionConstrainedTripletLoss,
    GradedTripletLoss,
    SmoothedCrossEntropy,
    TripletLoss,
)
from ser_plugins.metric.mining import semi_hard
from ser_plugins.metric.sampler import BalancedBatchSampler
from ser_plugins.metric.wheel import COORDINATES, WHEEL, emotion_distances, polarity_ids

__all__ = [
    "COORDINATES",
    "WHEEL",
    "BalancedBatchSampler",
    "ContrastiveLoss",
    "EmotionConstrainedTripletLoss",
    "GradedTripletLoss",
    "SmoothedCrossEntropy",
    "TripletLoss",
    "emotion_distances",
    "neighbour_errors",
    "pairwise_distances",
    "polarity_ids",
    "semi_hard",
]
