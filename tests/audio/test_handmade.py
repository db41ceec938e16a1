"""Hand-made features against librosa called plainly."""

import sys

import librosa
import numpy as np
import pytest
import torch
from scipy.stats import norm

from ser_plugins.audio.handmade import CepstralFeatures, SpectralFeatures
from ser_plugins.audio.modulation import ModulationFeatures
from ser_plugins.audio.stored import keep_features
from ser_plugins.errors import InputError

KINDS = [CepstralFeatures, ModulationFeatures, SpectralFeatures]


def voice(seconds, seed=0):
    """A gliding harmonic tone with noise, which ends in no zero."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(16000 * seconds)) / 16000
    tone = sum(np.sin(2 * np.pi * k * (150 * time + 40 * time**2)) / k for k in range(1, 8))
    return (0.1 * tone + 0.01 * norm.rvs(size=len(time), random_state=rng) + 1e-3).astype(np.float32)


def test_cepstral_features_are_librosas():
    y = voice(0.7)
    found = CepstralFeatures()(torch.from_numpy(y)[None]).flatten().numpy()
    mfcc = librosa.feature.mfcc(y=y, sr=16000, n_mfcc=13, n_fft=512, hop_length=160)
    rows = [
        *mfcc,
        *librosa.feature.delta(mfcc, mode="nearest"),
        *librosa.feature.delta(mfcc, order=2, mode="nearest"),
        *librosa.feature.spectral_centroid(y=y, sr=16000, n_fft=512, hop_length=160),
    ]
    expected = [float(np.mean(row)) for row in rows] + [float(np.std(row)) for row in rows]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_spectral_features_are_librosas():
    y = voice(0.7)
    found = SpectralFeatures()(torch.from_numpy(y)[None]).flatten().numpy()
    expected = [
        *librosa.feature.mfcc(y=y, sr=16000, n_mfcc=40),
        *librosa.feature.chroma_stft(y=y, sr=16000),
        *librosa.feature.melspectrogram(y=y, sr=16000),
        *librosa.feature.spectral_contrast(y=y, sr=16000),
        *librosa.feature.tonnetz(y=librosa.effects.harmonic(y), sr=16000),
    ]
    assert found.shape == (193,)
    np.testing.assert_allclose(found, [float(np.mean(row)) for row in expected], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_padded_utterance_has_the_features_that_it_has_alone(kind):
    clips = [torch.from_numpy(voice(seconds, seed)) for seed, seconds in enumerate((0.5, 0.1, 0.23))]
    together = kind()(torch.nn.utils.rnn.pad_sequence(clips, batch_first=True))
    for clip, found in zip(clips, together, strict=True):
        assert torch.equal(kind()(clip[None])[0], found)


@pytest.mark.parametrize("kind", KINDS)
def test_silence_has_features(kind):
    assert kind()(torch.zeros(1, 3200)).isfinite().all()


def test_an_utterance_is_described_once():
    class Counting(CepstralFeatures):
        calls = 0

        def describe(self, samples):
            self.calls += 1
            return super().describe(samples)

    features, clip = Counting(), torch.from_numpy(voice(0.2))
    first = features(clip[None])
    again = features(torch.stack([torch.nn.functional.pad(clip, (0, 500)), -torch.nn.functional.pad(clip, (500, 0))]))
    assert torch.equal(first[0], again[0]) and features.calls == 2


def test_features_that_are_kept_are_taken_by_another_process(tmp_path):
    class Unable(SpectralFeatures):
        def describe(self, samples):
            raise AssertionError("described again")

    clip = torch.from_numpy(voice(0.2))[None]
    first, other = SpectralFeatures(), Unable()
    keep_features(first, tmp_path)
    found = first(clip)
    [file] = (tmp_path / "features").rglob("*.npy")
    assert np.array_equal(np.load(file), found.flatten().numpy())
    Unable.__name__ = "SpectralFeatures"
    keep_features(other, tmp_path)
    assert torch.equal(other(clip), found)
    Unable.__name__ = "Unable"
    fresh = Unable()
    keep_features(fresh, tmp_path)
    with pytest.raises(AssertionError, match="described again"):  # each kind has its own
        fresh(clip)


def test_without_librosa_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "librosa", None)
    with pytest.raises(InputError, match="competitors"):
        CepstralFeatures()
