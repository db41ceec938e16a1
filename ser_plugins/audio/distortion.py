"""Distortions of waveforms that leave each frame where it is: SpeechBrain's augmenter takes them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ser_plugins.audio.reading import SAMPLE_RATE

OCTAVES = (0.0, 125.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0)  # Hz


class RandomEqualizer(nn.Module):
    """Amplify each utterance by a random smooth curve over frequency, as microphones and rooms do.

    The gains at eight frequencies, an octave apart, are normally distributed; between them they are interpolated.

    Parameters
    ----------
    deviation : float
        Standard deviation of each gain, in dB.
    tilt : float
        Standard deviation of the slope over all frequencies, in dB an octave.

    Example
    -------
    >>> RandomEqualizer()(torch.randn(2, 16000)).shape
    torch.Size([2, 16000])
    """

    def __init__(self, deviation: float = 3.0, tilt: float = 1.0) -> None:
        super().__init__()
        self.deviation, self.tilt = deviation, tilt

    def forward(self, wavs: Tensor) -> Tensor:
        """Filter ``wavs`` [B, T]."""
        slope = self.tilt * torch.randn(len(wavs), 1) * (torch.arange(len(OCTAVES)) - (len(OCTAVES) - 1) / 2)
        gains = self.deviation * torch.randn(len(wavs), len(OCTAVES)) + slope
        spectrum = torch.fft.rfft(wavs)
        hertz = torch.linspace(0, SAMPLE_RATE / 2, spectrum.shape[1])
        decibels = _interpolate(torch.log2(hertz + 60), torch.log2(torch.tensor(OCTAVES) + 60), gains)
        filtered: Tensor = torch.fft.irfft(spectrum * (10 ** (decibels / 20)).to(wavs.device), wavs.shape[1])
        return filtered


class RandomLevel(nn.Module):
    """Scale each utterance to a random level.

    Parameters
    ----------
    low, high : float
        Bounds of the root mean square, in dB of full scale.

    Example
    -------
    >>> RandomLevel(-20.0, -20.0)(torch.randn(1, 16000)).square().mean().sqrt().round(decimals=3)
    tensor(0.1000)
    """

    def __init__(self, low: float = -32.0, high: float = -14.0) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, wavs: Tensor) -> Tensor:
        """Scale ``wavs`` [B, T]; silence stays."""
        decibels = torch.empty(len(wavs), 1, device=wavs.device).uniform_(self.low, self.high)
        return wavs / _rms(wavs) * 10 ** (decibels / 20)


class Babble(nn.Module):
    """Add other utterances of the batch, as a crowd in the background.

    Parameters
    ----------
    talkers : int
        Utterances that are added, each shifted in time at random.
    snr_low, snr_high : float
        Bounds of the signal-to-noise ratio, in dB.

    Example
    -------
    >>> Babble()(torch.randn(8, 16000)).shape
    torch.Size([8, 16000])
    """

    def __init__(self, talkers: int = 4, snr_low: float = 5.0, snr_high: float = 30.0) -> None:
        super().__init__()
        self.talkers, self.snr_low, self.snr_high = talkers, snr_low, snr_high

    def forward(self, wavs: Tensor) -> Tensor:
        """Add babble to ``wavs`` [B, T]; a batch of one utterance stays as it is."""
        batch, samples = wavs.shape
        crowd = torch.zeros_like(wavs)
        for _ in range(self.talkers if batch > 1 else 0):
            others = (torch.arange(batch) + torch.randint(1, batch, (batch,))) % batch
            starts = torch.randint(samples, (batch, 1))
            places = (starts + torch.arange(samples)) % samples
            crowd += wavs[others.to(wavs.device)].gather(1, places.to(wavs.device))
        snr = torch.empty(batch, 1, device=wavs.device).uniform_(self.snr_low, self.snr_high)
        return wavs + crowd / _rms(crowd) * _rms(wavs) * 10 ** (-snr / 20)


def _rms(wavs: Tensor) -> Tensor:
    return wavs.square().mean(1, keepdim=True).sqrt().clamp(min=math.sqrt(torch.finfo(wavs.dtype).tiny))


def _interpolate(x: Tensor, known: Tensor, values: Tensor) -> Tensor:
    """Interpolate ``values`` [B, K] at ``known`` [K] linearly at ``x`` [N]: [B, N]."""
    right = torch.searchsorted(known, x).clamp(1, len(known) - 1)
    share = (x - known[right - 1]) / (known[right] - known[right - 1])
    return values[:, right - 1] + share * (values[:, right] - values[:, right - 1])
