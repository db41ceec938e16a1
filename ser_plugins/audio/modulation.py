"""Modulation features: how fast the spectrum changes over time, and how it varies over frequency."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ser_plugins.audio.handmade import Floats, HandmadeFeatures
from ser_plugins.audio.reading import SAMPLE_RATE


class ModulationFeatures(HandmadeFeatures):
    """Mean and deviation of the joint spectro-temporal modulation spectrum over the patches of an utterance.

    The 272 features follow Chi, Yeh and Hsu (Journal of Ambient Intelligence and Humanized Computing 3, 2012). They
    filter an auditory spectrogram by rate (temporal modulation) and scale (spectral modulation).

    The spectrogram here has 40 logarithmic Mel bands, in frames of 32 ms every 10 ms. Patches of 64 frames overlap by
    half, and have a Hann window along both axes. The features are magnitudes m of their two-dimensional Fourier
    transforms, as log(1 + m). There are 8 scales of 0 … 7 cycles over the bands, and 17 rates of −12.5 … 12.5 Hz. The
    sign of a rate distinguishes rising from falling sweeps.

    Example
    -------
    >>> import torch
    >>> ModulationFeatures()(torch.randn(2, 16000)).shape
    torch.Size([2, 1, 272])
    """

    BANDS, FRAMES, SCALES, RATES = 40, 64, 8, 8

    def measure(self, samples: Floats) -> Floats:
        """Compute the features [272] of ``samples`` [T]."""
        from librosa import feature, power_to_db  # noqa: PLC0415

        power = feature.melspectrogram(y=samples, sr=SAMPLE_RATE, n_fft=512, hop_length=160, n_mels=self.BANDS)
        decibels = power_to_db(power)
        frames = decibels - decibels.mean()
        frames = np.pad(frames, ((0, 0), (0, max(0, self.FRAMES - frames.shape[1]))))  # with the mean
        patches = sliding_window_view(frames, self.FRAMES, axis=1)[:, :: self.FRAMES // 2].swapaxes(0, 1)
        window = np.outer(np.hanning(self.BANDS), np.hanning(self.FRAMES))
        spectrum = np.log1p(np.abs(np.fft.fft2(patches * window)))
        low = spectrum[:, : self.SCALES, np.arange(-self.RATES, self.RATES + 1)].reshape(len(spectrum), -1)
        return np.concatenate([low.mean(0), low.std(0)])
