"""SpeechBrain plugins for speech emotion embeddings."""

from ser_plugins.audio.spectrogram import Spectrogram, SpectrogramNorm
from ser_plugins.audio.speech import SpeechNormalizer
from ser_plugins.metric.losses import EmotionConstrainedTripletLoss, TripletLoss
from ser_plugins.models.encoder import MarginClassifier, SoftmaxClassifier, UtteranceEncoder
from ser_plugins.models.ghostvlad import GhostVLAD
from ser_plugins.models.se_resnet import SEResNet34
from ser_plugins.models.svm import SVMClassifier

__all__ = [
    "EmotionConstrainedTripletLoss",
    "GhostVLAD",
    "MarginClassifier",
    "SEResNet34",
    "SVMClassifier",
    "SoftmaxClassifier",
    "Spectrogram",
    "SpectrogramNorm",
    "SpeechNormalizer",
    "TripletLoss",
    "UtteranceEncoder",
]
