"""Modulation features against a Fourier sum by loops, and on sweeps of known rate and scale."""

import librosa
import numpy as np
import pytest
import torch

from ser_plugins.audio.modulation import ModulationFeatures


def patches_of(y):
    power = librosa.feature.melspectrogram(y=y, sr=16000, n_fft=512, hop_length=160, n_mels=40)
    level = librosa.power_to_db(power)
    level = level - level.mean()
    while level.shape[1] < 64:
        level = np.concatenate([level, np.zeros((40, 1))], axis=1)
    return [level[:, start : start + 64] for start in range(0, level.shape[1] - 63, 32)]


def fourier_sum(patch, scale, rate):
    """One value of the two-dimensional Fourier transform under a Hann window, by its definition."""
    total = 0
    for band in range(40):
        for frame in range(64):
            window = np.sin(np.pi * band / 39) ** 2 * np.sin(np.pi * frame / 63) ** 2
            phase = scale * band / 40 + rate * frame / 64
            total += window * patch[band, frame] * np.exp(-2j * np.pi * phase)
    return total


@pytest.mark.parametrize("samples", [24000, 5000])
def test_features_are_the_fourier_sums(samples):
    y = (0.1 * np.random.default_rng(0).normal(size=samples) * np.linspace(1, 3, samples)).astype(np.float32)
    found = ModulationFeatures()(torch.from_numpy(y)[None]).reshape(2, 8, 17).numpy()
    for scale, rate in ((0, 0), (0, 3), (2, -4), (7, 8), (5, -8)):
        values = [np.log1p(abs(fourier_sum(patch, scale, rate))) for patch in patches_of(y)]
        expected = [np.mean(values), np.std(values)]
        np.testing.assert_allclose(found[:, scale, rate + 8], expected, rtol=1e-4, atol=1e-4)


def test_rising_and_falling_sweeps_differ_in_the_sign_of_the_rate():
    time = np.arange(32000) / 16000
    rising = 0.3 * np.sin(2 * np.pi * np.cumsum(300 * 2 ** (3 * ((4 * time) % 1))) / 16000)  # four sweeps a second
    rows = []
    for y in (rising, rising[::-1]):
        means = ModulationFeatures()(torch.from_numpy(y.astype(np.float32).copy())[None]).reshape(2, 8, 17)[0].numpy()
        rows.append((means[1:, :8].sum(), means[1:, 9:].sum()))
    assert rows[0][0] > 1.05 * rows[0][1] and rows[1][1] > 1.05 * rows[1][0]
