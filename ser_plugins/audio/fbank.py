"""Kaldi's Mel filterbanks, for networks that were trained on them, and the norm that belongs to them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ser_plugins.lengths import count_frames, frame_mask

PREEMPHASIS = 0.97
LOWEST = 20.0  # Hz
EPSILON = torch.finfo(torch.float32).eps


class KaldiFbank(nn.Module):
    """Logarithmic Mel filterbanks of a batch, as Kaldi's ``compute-fbank-feats`` computes them without dither.

    The values equal those of ``torchaudio.compliance.kaldi.fbank``. A frame of 25 ms starts every 10 ms and is whole
    (``snip_edges``). Its mean is removed; it is pre-emphasised and multiplied by a Povey window. Triangular filters,
    evenly spaced on the Mel scale from 20 Hz to half the sample rate, sum its power spectrum. Frames that reach beyond
    the last non-zero sample are blank, see `ser_plugins.lengths`: a clip padded in a batch has the frames that it has
    alone. A clip shorter than a frame is padded to one.

    Parameters
    ----------
    sample_rate : int
        Samples per second.
    n_mels : int
        Filters, F.

    Example
    -------
    >>> KaldiFbank()(torch.randn(2, 16000)).shape
    torch.Size([2, 98, 80])
    """

    window: Tensor
    filters: Tensor

    def __init__(self, sample_rate: int = 16000, n_mels: int = 80) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.win = sample_rate * 25 // 1000
        self.hop = sample_rate * 10 // 1000
        self.n_fft = 1 << (self.win - 1).bit_length()
        from torchaudio.compliance.kaldi import get_mel_banks  # noqa: PLC0415 — takes a while

        filters, _ = get_mel_banks(n_mels, self.n_fft, sample_rate, LOWEST, 0.0, 100.0, -500.0, 1.0)
        self.register_buffer("filters", functional.pad(filters, (0, 1)).T.contiguous(), persistent=False)
        self.register_buffer("window", torch.hann_window(self.win, periodic=False).pow(0.85), persistent=False)

    def forward(self, wavs: Tensor) -> Tensor:
        """Compute the filterbanks.

        Parameters
        ----------
        wavs : torch.Tensor
            Waveforms, [B, T].

        Returns
        -------
        torch.Tensor
            Logarithms of the filters' power, [B, (T - win) // hop + 1, F].
        """
        if wavs.dim() != 2:
            raise ValueError(f"waveforms must be [batch, samples], got shape {tuple(wavs.shape)}")
        with torch.autocast(wavs.device.type, enabled=False):
            wavs = functional.pad(wavs.float(), (0, max(0, self.win - wavs.shape[1])))
            spectrum = self.transform(wavs.unfold(1, self.win, self.hop))
            return self.finish(spectrum.real.square() + spectrum.imag.square(), wavs)

    def transform(self, frames: Tensor) -> Tensor:
        """Compute the complex spectra [..., n_fft / 2 + 1] of ``frames`` [..., win], a linear function of them."""
        frames = frames - frames.mean(-1, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        spectrum: Tensor = torch.fft.rfft((frames - PREEMPHASIS * before) * self.window.to(frames), self.n_fft)
        return spectrum

    def finish(self, power: Tensor, wavs: Tensor) -> Tensor:
        """Sum ``power`` [B, T', n_fft / 2 + 1] of ``wavs`` [B, T] over each filter, and blank frames of padding."""
        feats: Tensor = (power @ self.filters.float()).clamp(min=EPSILON).log()
        position = torch.arange(1, wavs.shape[1] + 1, device=wavs.device)
        end = (position * (wavs != 0)).amax(1)
        count = torch.div(end - self.win, self.hop, rounding_mode="floor") + 1
        return feats * frame_mask(count.clamp(min=1), feats.shape[1]).unsqueeze(2)


class MeanNorm(nn.Module):
    """Zero mean of each bin over the frames of an utterance; padded frames neither count nor change.

    Example
    -------
    >>> feats = MeanNorm()(KaldiFbank()(torch.randn(1, 16000)))
    >>> bool(feats.mean(1).abs().max() < 1e-4)
    True
    """

    def forward(self, feats: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Take from ``feats`` [B, T', F] with relative ``lengths`` [B] their mean; the shape stays."""
        frames = count_frames(feats, lengths)
        mask = frame_mask(frames, feats.shape[1]).unsqueeze(2)
        mean = (feats * mask).sum(1, keepdim=True) / frames[:, None, None]
        return (feats - mean) * mask
