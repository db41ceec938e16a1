"""Distortions against plain computations on pure tones."""

import numpy as np
import pytest
import torch
from speechbrain.augment.augmenter import Augmenter

from ser_plugins import Babble, RandomEqualizer, RandomLevel


def tone(hertz, seconds=1.0):
    return 0.1 * torch.sin(2 * torch.pi * hertz * torch.arange(int(16000 * seconds)) / 16000)


def decibels(before, after):
    return float(10 * torch.log10(after.square().mean() / before.square().mean()))


@pytest.mark.parametrize("hertz", [125, 700, 4000])
def test_a_tone_is_amplified_by_the_interpolated_gain(hertz):
    torch.manual_seed(4)
    wavs = torch.stack([tone(hertz), tone(hertz)])
    found = RandomEqualizer(deviation=3.0, tilt=1.0)(wavs)
    torch.manual_seed(4)
    slope = torch.randn(2, 1).numpy() * (np.arange(8) - 3.5)
    gains = 3.0 * torch.randn(2, 8).numpy() + slope
    octaves = np.log2(np.array([0, 125, 250, 500, 1000, 2000, 4000, 8000]) + 60)
    for before, after, gain in zip(wavs, found, gains, strict=True):
        expected = np.interp(np.log2(hertz + 60), octaves, gain)
        assert decibels(before, after) == pytest.approx(expected, abs=0.02)
        assert torch.nn.functional.cosine_similarity(before, after, dim=0) > 0.9999  # no delay


def test_levels_are_within_the_bounds_and_differ():
    wavs = torch.stack([tone(200) * factor for factor in (0.001, 1.0, 5.0)] + [torch.zeros(16000)])
    found = RandomLevel(-30, -10)(wavs)
    levels = 10 * torch.log10(found[:3].square().mean(1))
    assert ((levels > -30) & (levels < -10)).all() and levels.unique().numel() == 3
    assert not found[3].any() and found.isfinite().all()


def test_babble_has_the_ratio_and_none_of_the_utterance_itself():
    wavs = torch.stack([tone(hertz) for hertz in (200, 500, 1100)])
    noise = Babble(talkers=3, snr_low=10, snr_high=10)(wavs) - wavs
    for i, one in enumerate(noise):
        assert decibels(one, wavs[i]) == pytest.approx(10, abs=0.01)
        spectrum = torch.fft.rfft(one).abs()
        assert spectrum[[200, 500, 1100][i]] < 1e-3 * spectrum.max()


def test_babble_needs_others():
    assert torch.equal(Babble()(tone(200)[None]), tone(200)[None])


def test_speechbrains_augmenter_takes_them():
    augment = Augmenter(
        min_augmentations=3, max_augmentations=3, augmentations=[RandomEqualizer(), Babble(), RandomLevel()]
    )
    found, lengths = augment(torch.stack([tone(300), tone(900)]), torch.ones(2))
    assert found.shape == (2, 16000) and found.isfinite().all() and torch.equal(lengths, torch.ones(2))
