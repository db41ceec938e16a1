"""SpeechBrain plugins for speech emotion embeddings."""

from typing import TYPE_CHECKING

from ser_plugins.lazy import attach

if TYPE_CHECKING:
    from ser_plugins.audio.distortion import Babble, RandomEqualizer, RandomLevel
    from ser_plugins.audio.fbank import KaldiFbank, MeanNorm
    from ser_plugins.audio.handmade import CepstralFeatures, SpectralFeatures
    from ser_plugins.audio.spectrogram import MelSpectrogram, Spectrogram, SpectrogramNorm
    from ser_plugins.audio.speech import SpeechNormalizer
    from ser_plugins.metric.losses import (
        EmotionConstrainedTripletLoss,
        GradedTripletLoss,
        SmoothedCrossEntropy,
        TripletLoss,
    )
    from ser_plugins.model_folder.loading import load
    from ser_plugins.models.bagged_svm import BaggedSVMClassifier
    from ser_plugins.models.campplus import CAMPPlus
    from ser_plugins.models.encoder import MarginClassifier, SoftmaxClassifier, UtteranceEncoder
    from ser_plugins.models.feature_cnn import FeatureCNN
    from ser_plugins.models.ghostvlad import GhostVLAD, ProjectedGhostVLAD
    from ser_plugins.models.logistic import LogisticClassifier
    from ser_plugins.models.mean_pooling import MeanPooling
    from ser_plugins.models.se_resnet import SEResNet34
    from ser_plugins.models.ssl import SSLBackbone
    from ser_plugins.models.statistics_pooling import StatisticsPooling
    from ser_plugins.models.svm import SVMClassifier
    from ser_plugins.models.thin_resnet import ThinResNet34

__all__ = [
    "Babble",
    "BaggedSVMClassifier",
    "CAMPPlus",
    "CepstralFeatures",
    "EmotionConstrainedTripletLoss",
    "FeatureCNN",
    "GhostVLAD",
    "GradedTripletLoss",
    "KaldiFbank",
    "LogisticClassifier",
    "MarginClassifier",
    "MeanNorm",
    "MeanPooling",
    "MelSpectrogram",
    "ProjectedGhostVLAD",
    "RandomEqualizer",
    "RandomLevel",
    "SEResNet34",
    "SSLBackbone",
    "SVMClassifier",
    "SmoothedCrossEntropy",
    "SoftmaxClassifier",
    "SpectralFeatures",
    "Spectrogram",
    "SpectrogramNorm",
    "SpeechNormalizer",
    "StatisticsPooling",
    "ThinResNet34",
    "TripletLoss",
    "UtteranceEncoder",
    "load",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "audio.distortion": ["Babble", "RandomEqualizer", "RandomLevel"],
        "audio.fbank": ["KaldiFbank", "MeanNorm"],
        "audio.handmade": ["CepstralFeatures", "SpectralFeatures"],
        "audio.spectrogram": ["MelSpectrogram", "Spectrogram", "SpectrogramNorm"],
        "audio.speech": ["SpeechNormalizer"],
        "metric.losses": ["EmotionConstrainedTripletLoss", "GradedTripletLoss", "SmoothedCrossEntropy", "TripletLoss"],
        "models.bagged_svm": ["BaggedSVMClassifier"],
        "models.campplus": ["CAMPPlus"],
        "models.encoder": ["MarginClassifier", "SoftmaxClassifier", "UtteranceEncoder"],
        "models.feature_cnn": ["FeatureCNN"],
        "models.ghostvlad": ["GhostVLAD", "ProjectedGhostVLAD"],
        "models.logistic": ["LogisticClassifier"],
        "models.mean_pooling": ["MeanPooling"],
        "models.se_resnet": ["SEResNet34"],
        "models.ssl": ["SSLBackbone"],
        "models.statistics_pooling": ["StatisticsPooling"],
        "models.svm": ["SVMClassifier"],
        "models.thin_resnet": ["ThinResNet34"],
        "model_folder.loading": ["load"],
    },
)
