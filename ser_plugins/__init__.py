"""SpeechBrain plugins for speech emotion embeddings."""

from typing import TYPE_CHECKING

from ser_plugins.lazy import attach

if TYPE_CHECKING:
    from ser_plugins.audio.distortion import Babble, RandomEqualizer, RandomLevel
    from ser_plugins.audio.fbank import KaldiFbank, MeanNorm
    from ser_plugins.audio.handmade import CepstralFeatures, SpectralFeatures
    from ser_plugins.audio.modulation import ModulationFeatures
    from ser_plugins.audio.spectrogram import MelSpectrogram, Spectrogram, SpectrogramNorm
    from ser_plugins.audio.speech import SpeechNormalizer
    from ser_plugins.metric.losses import (
        ContrastiveLoss,
        EmotionConstrainedTripletLoss,
        GradedTripletLoss,
        SmoothedCrossEntropy,
        TripletLoss,
    )
    from ser_plugins.model_folder.loading import load
    from ser_plugins.models.attentive_pooling import AttentivePooling
    from ser_plugins.models.bagged_svm import BaggedSVMClassifier
    from ser_plugins.models.campplus import CAMPPlus
    from ser_plugins.models.encoder import MarginClassifier, SoftmaxClassifier, UtteranceEncoder
    from ser_plugins.models.feature_cnn import FeatureCNN
    from ser_plugins.models.fitted import (
        ForestClassifier,
        NeighbourClassifier,
        PerceptronClassifier,
        SelectedClassifier,
    )
    from ser_plugins.models.ghostvlad import GhostVLAD, ProjectedGhostVLAD
    from ser_plugins.models.joint import JointBackbone
    from ser_plugins.models.logistic import LogisticClassifier
    from ser_plugins.models.lstm import LSTMBackbone
    from ser_plugins.models.mean_pooling import MeanPooling
    from ser_plugins.models.pairwise import PairwiseClassifier
    from ser_plugins.models.patch_encoder import PatchEncoder
    from ser_plugins.models.se_resnet import SEResNet34
    from ser_plugins.models.ssl import SSLBackbone
    from ser_plugins.models.statistics_pooling import StatisticsPooling
    from ser_plugins.models.svm import SVMClassifier
    from ser_plugins.models.thin_resnet import ThinResNet34

__all__ = [
    "AttentivePooling",
    "Babble",
    "BaggedSVMClassifier",
    "CAMPPlus",
    "CepstralFeatures",
    "ContrastiveLoss",
    "EmotionConstrainedTripletLoss",
    "FeatureCNN",
    "ForestClassifier",
    "GhostVLAD",
    "GradedTripletLoss",
    "JointBackbone",
    "KaldiFbank",
    "LSTMBackbone",
    "LogisticClassifier",
    "MarginClassifier",
    "MeanNorm",
    "MeanPooling",
    "MelSpectrogram",
    "ModulationFeatures",
    "NeighbourClassifier",
    "PairwiseClassifier",
    "PatchEncoder",
    "PerceptronClassifier",
    "ProjectedGhostVLAD",
    "RandomEqualizer",
    "RandomLevel",
    "SEResNet34",
    "SSLBackbone",
    "SVMClassifier",
    "SelectedClassifier",
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
        "audio.modulation": ["ModulationFeatures"],
        "audio.spectrogram": ["MelSpectrogram", "Spectrogram", "SpectrogramNorm"],
        "audio.speech": ["SpeechNormalizer"],
        "metric.losses": [
            "ContrastiveLoss",
            "EmotionConstrainedTripletLoss",
            "GradedTripletLoss",
            "SmoothedCrossEntropy",
            "TripletLoss",
        ],
        "model_folder.loading": ["load"],
        "models.attentive_pooling": ["AttentivePooling"],
        "models.bagged_svm": ["BaggedSVMClassifier"],
        "models.campplus": ["CAMPPlus"],
        "models.encoder": ["MarginClassifier", "SoftmaxClassifier", "UtteranceEncoder"],
        "models.feature_cnn": ["FeatureCNN"],
        "models.fitted": ["ForestClassifier", "NeighbourClassifier", "PerceptronClassifier", "SelectedClassifier"],
        "models.ghostvlad": ["GhostVLAD", "ProjectedGhostVLAD"],
        "models.joint": ["JointBackbone"],
        "models.logistic": ["LogisticClassifier"],
        "models.lstm": ["LSTMBackbone"],
        "models.mean_pooling": ["MeanPooling"],
        "models.pairwise": ["PairwiseClassifier"],
        "models.patch_encoder": ["PatchEncoder"],
        "models.se_resnet": ["SEResNet34"],
        "models.ssl": ["SSLBackbone"],
        "models.statistics_pooling": ["StatisticsPooling"],
        "models.svm": ["SVMClassifier"],
        "models.thin_resnet": ["ThinResNet34"],
    },
)
