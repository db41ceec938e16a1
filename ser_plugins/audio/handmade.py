"""Hand-made features: one vector an utterance, by librosa."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ser_plugins.audio.reading import SAMPLE_RATE
from ser_plugins.audio.stored import StoredFeatures
from ser_plugins.errors import InputError

Floats = NDArray[np.float32]


class HandmadeFeatures(StoredFeatures):
    """Base class of hand-made features: one vector [B, 1, F] an utterance, computed once and stored.

    Raises
    ------
    InputError
        If librosa is missing.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            import librosa  # noqa: F401, PLC0415 — an optional dependency
        except ImportError as error:
            raise InputError('hand-made features need librosa; pip install "ser-plugins[competitors]"') from error

    def settings(self) -> str:
        """Describe what the features depend on, besides the samples."""
        return f"{type(self).__name__} {SAMPLE_RATE} {version('librosa')} "

    def describe(self, samples: Floats) -> Floats:
        """Compute the features [F] of the samples [T] of an utterance."""
        with warnings.catch_warnings():
            # Of a short clip librosa says that a window is longer, and of silence that it has no pitch.
            warnings.simplefilter("ignore", UserWarning)
            return self.measure(samples).astype(np.float32)

    def measure(self, samples: Floats) -> Floats:
        """Measure the features [F] of the samples [T]."""
        raise NotImplementedError


class CepstralFeatures(HandmadeFeatures):
    """Mean and standard deviation over time of 13 MFCCs, their first and second differences, and the spectral centroid.

    80 features: those that Mocanu et al. 2021 name of Bhavan et al., "Bagged support vector machines for emotion
    recognition from speech", Knowledge-Based Systems 184, 2019. Choices made here: frames of 32 ms every 10 ms, both
    statistics, differences over 9 frames, and no selection of features after that.

    Example
    -------
    >>> import torch
    >>> CepstralFeatures()(torch.randn(2, 16000)).shape
    torch.Size([2, 1, 80])
    """

    def measure(self, samples: Floats) -> Floats:
        """Compute the features [80] of ``samples`` [T]."""
        from librosa import feature  # noqa: PLC0415

        options: dict[str, Any] = {"y": samples, "sr": SAMPLE_RATE, "n_fft": 512, "hop_length": 160}
        cepstrum = feature.mfcc(n_mfcc=13, **options)
        # The border is continued: the usual fit of a polynomial needs clips of 9 frames or more.
        differences = [feature.delta(cepstrum, order=order, mode="nearest") for order in (1, 2)]
        frames = np.concatenate([cepstrum, *differences, feature.spectral_centroid(**options)])
        return np.concatenate([frames.mean(1), frames.std(1)])


class SpectralFeatures(HandmadeFeatures):
    """Means over time of 40 MFCCs, 12 chroma, 128 mel bands, 7 spectral contrasts and 6 tonal centroids (tonnetz).

    The 193 features of Issa, Demirci and Yazici, "Speech emotion recognition with deep convolutional neural networks",
    Biomedical Signal Processing and Control 59, 2020. Choices made here: librosa's own frames and settings, at 16 kHz;
    tonal centroids of the harmonic part, as librosa's documentation has them.

    Example
    -------
    >>> import torch
    >>> SpectralFeatures()(torch.randn(2, 16000)).shape
    torch.Size([2, 1, 193])
    """

    def measure(self, samples: Floats) -> Floats:
        """Compute the features [193] of ``samples`` [T]."""
        from librosa import feature  # noqa: PLC0415
        from librosa.effects import harmonic  # noqa: PLC0415

        options: dict[str, Any] = {"y": samples, "sr": SAMPLE_RATE}
        kinds = [
            feature.mfcc(n_mfcc=40, **options),
            feature.chroma_stft(**options),
            feature.melspectrogram(**options),
            feature.spectral_contrast(**options),
            feature.tonnetz(y=harmonic(samples), sr=SAMPLE_RATE),
        ]
        return np.concatenate([kind.mean(1) for kind in kinds])
