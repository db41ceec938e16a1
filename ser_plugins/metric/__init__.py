"""Relations between emotions, mining, losses and balanced batches."""

from ser_plugins.metric.distance import pairwise_distances
from ser_plugins.metric.losses import EmotionConstrainedTripletLoss, SmoothedCrossEntropy, TripletLoss
from ser_plugins.metric.mining import semi_hard
from ser_plugins.metric.sampler import BalancedBatchSampler
from ser_plugins.metric.wheel import WHEEL, polarity_ids

__all__ = [
    "WHEEL",
    "BalancedBatchSampler",
    "EmotionConstrainedTripletLoss",
    "SmoothedCrossEntropy",
    "TripletLoss",
    "pairwise_distances",
    "polarity_ids",
    "semi_hard",
]
