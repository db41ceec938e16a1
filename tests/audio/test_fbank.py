"""Kaldi's filterbanks against torchaudio's and against a loop, and the norm."""

import math

import numpy as np
import pytest
import torch
from torchaudio.compliance import kaldi

from ser_plugins.audio.fbank import KaldiFbank, MeanNorm
from ser_plugins.lengths import count_frames


def noise(samples, seed=0):
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def fbank_by_loop(signal):
    """One value after the other, in float64."""
    window = [(0.5 - 0.5 * math.cos(2 * math.pi * i / 399)) ** 0.85 for i in range(400)]
    mels = [1127 * math.log(1 + hertz / 700) for hertz in (20.0, 8000.0)]
    step = (mels[1] - mels[0]) / 81
    rows = []
    for start in range(0, len(signal) - 399, 160):
        frame = signal[start : start + 400].astype(np.float64)
        frame = frame - frame.mean()
        frame = np.append(frame[0] * 0.03, frame[1:] - 0.97 * frame[:-1]) * window
        power = np.abs(np.fft.rfft(frame, 512)) ** 2
        row = []
        for m in range(80):
            left, centre, right = (mels[0] + (m + i) * step for i in range(3))
            total = 0.0
            for k in range(256):
                mel = 1127 * math.log(1 + k * 31.25 / 700)
                total += power[k] * max(0.0, min((mel - left) / (centre - left), (right - mel) / (right - centre)))
            row.append(math.log(max(total, np.finfo(np.float32).eps)))
        rows.append(row)
    return rows


def test_values_are_those_of_a_loop():
    signal = noise(1000)
    np.testing.assert_allclose(KaldiFbank()(signal[None])[0], fbank_by_loop(signal.numpy()), atol=1e-3)


@pytest.mark.parametrize("samples", [400, 559, 560, 16000])
def test_values_are_those_of_torchaudio(samples):
    signals = torch.stack([noise(samples, seed) for seed in (1, 2)])
    found = KaldiFbank()(signals)
    expected = [kaldi.fbank(signal[None], num_mel_bins=80, dither=0.0) for signal in signals]
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-4, rtol=1e-4)


def test_other_rates_and_filters():
    signal = noise(4000)
    expected = kaldi.fbank(signal[None], num_mel_bins=23, dither=0.0, sample_frequency=8000)
    torch.testing.assert_close(KaldiFbank(8000, 23)(signal[None])[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("samples", [1, 399, 400, 401, 719, 720, 9999])
def test_a_clip_padded_in_a_batch_has_the_frames_it_has_alone(samples):
    fbank, norm, short, long = KaldiFbank(), MeanNorm(), noise(samples), noise(12345, 1)
    batch = torch.nn.utils.rnn.pad_sequence([short, long], batch_first=True)
    feats, lengths = fbank(batch), torch.tensor([samples / 12345, 1.0])
    alone = fbank(short[None])
    assert count_frames(feats, lengths).tolist() == [alone.shape[1], feats.shape[1]]
    torch.testing.assert_close(feats[0, : alone.shape[1]], alone[0])
    together = norm(feats, lengths)
    torch.testing.assert_close(together[0, : alone.shape[1]], norm(alone)[0], atol=1e-5, rtol=0)
    assert not together[0, alone.shape[1] :].any()


def test_the_norm_takes_the_mean_of_each_bin():
    feats = torch.randn(2, 9, 5) + 3
    feats[1, 4:] = 100
    found = MeanNorm()(feats, torch.tensor([1.0, 4 / 9]))
    np.testing.assert_allclose(found[0], feats[0] - feats[0].mean(0), atol=1e-5)
    np.testing.assert_allclose(found[1, :4], feats[1, :4] - feats[1, :4].mean(0), atol=1e-5)


def test_one_signal_is_refused():
    with pytest.raises(ValueError, match="batch"):
        KaldiFbank()(noise(1000))
