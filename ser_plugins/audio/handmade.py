"""Hand-made features: one vector an utterance, by librosa."""

from __future__ import annotations

import hashlib
import io
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ser_plugins.audio.reading import SAMPLE_RATE
from ser_plugins.errors import InputError
from ser_plugins.files import atomic_write

Floats = NDArray[np.float32]


class HandmadeFeatures(nn.Module):
    """Base class of hand-made features: one vector for each utterance of a batch, computed once and stored.

    A subclass implements ``describe``. The zeros that pad an utterance in a batch are removed first, so that it has the
    features that it has alone. The samples of an utterance are the key of its features, so that later epochs of whole
    utterances compute nothing.

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
        self.known: dict[str, Tensor] = {}
        self.folder: Path | None = None

    def forward(self, wavs: Tensor) -> Tensor:
        """Compute the features [B, 1, F], float32, of ``wavs`` [B, T]."""
        return torch.stack([self._recall(wav) for wav in wavs.detach().float().cpu()]).unsqueeze(1).to(wavs.device)

    def describe(self, samples: Floats) -> Floats:
        """Compute the features [F] of the samples [T] of an utterance."""
        raise NotImplementedError

    def _recall(self, wav: Tensor) -> Tensor:
        heard = wav.nonzero()
        samples = wav[: int(heard[-1]) + 1].numpy() if len(heard) else wav.numpy()
        about = f"{type(self).__name__} {SAMPLE_RATE} {version('librosa')} ".encode()
        key = hashlib.sha256(about + samples.tobytes()).hexdigest()
        if key not in self.known:
            self.known[key] = torch.from_numpy(self._find(key, samples))
        return self.known[key]

    def _find(self, key: str, samples: Floats) -> Floats:
        file = None if self.folder is None else self.folder / key[:2] / f"{key}.npy"
        if file is not None and file.is_file():
            return np.asarray(np.load(file), dtype=np.float32)
        with warnings.catch_warnings():
            # Of a short clip librosa says that a window is longer, and of silence that it has no pitch.
            warnings.simplefilter("ignore", UserWarning)
            features = self.describe(samples).astype(np.float32)
        if file is not None:
            content = io.BytesIO()
            np.save(content, features)
            atomic_write(file, content.getvalue())
        return features


def keep_features(compute_features: object, cache_folder: str | Path) -> None:
    """Store hand-made features with the prepared audio, and reuse them; other features are fast enough to compute."""
    if isinstance(compute_features, HandmadeFeatures):
        compute_features.folder = Path(cache_folder) / "features"


class CepstralFeatures(HandmadeFeatures):
    """Mean and standard deviation over time of 13 MFCCs, their first and second differences, and the spectral centroid.

    80 features: those that Mocanu et al. 2021 name of Bhavan et al., "Bagged support vector machines for emotion
    recognition from speech", Knowledge-Based Systems 184, 2019. Choices made here: frames of 32 ms every 10 ms, both
    statistics, differences over 9 frames, and no selection of features after that.

    Example
    -------
    >>> CepstralFeatures()(torch.randn(2, 16000)).shape
    torch.Size([2, 1, 80])
    """

    def describe(self, samples: Floats) -> Floats:
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
    >>> SpectralFeatures()(torch.randn(2, 16000)).shape
    torch.Size([2, 1, 193])
    """

    def describe(self, samples: Floats) -> Floats:
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
