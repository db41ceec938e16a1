"""SpeechBrain plugins for speech emotion embeddings."""

from ser_plugins.audio.spectrogram import Spectrogram, SpectrogramNorm
from ser_plugins.models.encoder import SoftmaxClassifier, UtteranceEncoder
from ser_plugins.models.ghostvlad import GhostVLAD
from ser_plugins.models.se_resnet import SEResNet34

__all__ = [
    "GhostVLAD",
    "SEResNet34",
    "SoftmaxClassifier",
    "Spectrogram",
    "SpectrogramNorm",
    "UtteranceEncoder",
]
