"""SpeechBrain plugins for speech emotion embeddings."""

from ser_plugins.audio.spectrogram import Spectrogram, SpectrogramNorm
from ser_plugins.audio.speech import SpeechNormalizer
from ser_plugins.metric.losses import EmotionConstrainedTripletLoss, TripletLoss
from ser_plugins.models.encoder import MarginClassifier, SoftmaxClassifier, UtteranceEncoder
from ser_plugins.models.ghostvlad import GhostVLAD, ProjectedGhostVLAD
from ser_plugins.models.se_resnet import SEResNet34
from ser_plugins.models.svm import SVMClassifier
from ser_plugins.models.thin_resnet import ThinResNet34

__all__ = [
    "EmotionConstrainedTripletLoss",
    "GhostVLAD",
    "MarginClassifier",
    "ProjectedGhostVLAD",
    "SEResNet34",
    "SVMClassifier",
    "SoftmaxClassifier",
    "Spectrogram",
    "SpectrogramNorm",
    "SpeechNormalizer",
    "ThinResNet34",
    "TripletLoss",
    "UtteranceEncoder",
]
