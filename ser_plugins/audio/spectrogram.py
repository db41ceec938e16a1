"""Waveforms to normalised spectrograms."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ser_plugins.audio.speaker import check_mode
from ser_plugins.lengths import count_frames, frame_mask


class Spectrogram(nn.Module):
    """Logarithmic magnitude spectrogram: Hamming window of 32 ms, step 10 ms, 512-point FFT, 257 bins.

    Mocanu, Tapu and Zaharia, Sensors 2021, section 3.1. Frames are centred; the border is padded with zeros, so that a
    clip padded with zeros in a batch has the same frames as alone. Frames centred after the last non-zero sample are
    blank (zero): see `ser_plugins.lengths`. A window shorter than the FFT is centred in it.

    Parameters
    ----------
    sample_rate : int
        Samples per second.
    win_length : float
        Window in milliseconds.
    hop_length : float
        Step in milliseconds.
    n_fft : int
        Points of the FFT; the spectrogram has ``n_fft // 2 + 1`` bins.
    log : bool
        Compress the magnitude m to ``log(1 + m / floor)``: the logarithm, shifted so that silence is 0. False gives
        the magnitude itself.
    floor : float
        Magnitude below which the compression turns linear.
    window : {"hamming", "hann"}
        Shape of the window, periodic.

    Example
    -------
    >>> Spectrogram()(torch.randn(2, 16000)).shape
    torch.Size([2, 101, 257])
    """

    WINDOWS: ClassVar = {"hamming": torch.hamming_window, "hann": torch.hann_window}
    window: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        win_length: float = 32.0,
        hop_length: float = 10.0,
        n_fft: int = 512,
        log: bool = True,
        floor: float = 1e-3,
        window: Literal["hamming", "hann"] = "hamming",
    ) -> None:
        super().__init__()
        if window not in self.WINDOWS:
            raise ValueError(f"window must be one of {', '.join(self.WINDOWS)}, not {window!r}")
        self.sample_rate = sample_rate
        self.win = round(sample_rate * win_length / 1000)
        self.hop = round(sample_rate * hop_length / 1000)
        self.n_fft = n_fft
        self.log = log
        self.floor = floor
        self.register_buffer("window", self.WINDOWS[window](self.win), persistent=False)

    def forward(self, wavs: Tensor) -> Tensor:
        """Compute the spectrogram.

        Parameters
        ----------
        wavs : torch.Tensor
            Waveforms, [B, T].

        Returns
        -------
        torch.Tensor
            [B, T // hop + 1, n_fft // 2 + 1], not negative.
        """
        if wavs.dim() != 2:
            raise ValueError(f"waveforms must be [batch, samples], got shape {tuple(wavs.shape)}")
        with torch.autocast(wavs.device.type, enabled=False):
            wavs = wavs.float()
            spectrum = torch.stft(
                wavs,
                self.n_fft,
                self.hop,
                self.win,
                self.window.float(),
                pad_mode="constant",
                return_complex=True,
            )
            return self.finish(spectrum.abs().transpose(1, 2), wavs)

    def finish(self, magnitudes: Tensor, wavs: Tensor) -> Tensor:
        """Compress ``magnitudes`` [B, T', F] of ``wavs`` [B, T], and blank the frames after the last sample."""
        feats = torch.log1p(magnitudes / self.floor) if self.log else magnitudes
        position = torch.arange(1, wavs.shape[1] + 1, device=wavs.device)
        end = (position * (wavs != 0)).amax(1)
        return feats * frame_mask(end // self.hop + 1, feats.shape[1]).unsqueeze(-1)


class MelSpectrogram(Spectrogram):
    """Mel spectrogram: the bins of a `Spectrogram` summed by triangular filters, evenly spaced on the Mel scale.

    A third of the bins, so that a network on them takes a third of the time.

    Parameters
    ----------
    n_mels : int
        Filters, F, from 0 to half the sample rate (Slaney's scale, as librosa).
    **options
        Those of `Spectrogram`.

    Example
    -------
    >>> MelSpectrogram()(torch.randn(2, 16000)).shape
    torch.Size([2, 101, 80])
    """

    filters: Tensor

    def __init__(self, n_mels: int = 80, **options: Any) -> None:
        super().__init__(**options)
        from torchaudio.functional import melscale_fbanks  # noqa: PLC0415 — takes a while

        filters = melscale_fbanks(
            self.n_fft // 2 + 1, 0.0, self.sample_rate / 2, n_mels, self.sample_rate, mel_scale="slaney"
        )
        self.register_buffer("filters", filters, persistent=False)

    def finish(self, magnitudes: Tensor, wavs: Tensor) -> Tensor:
        """Filter ``magnitudes`` [B, T', n_fft // 2 + 1] of ``wavs`` [B, T], compress them, and blank what follows."""
        return super().finish(magnitudes @ self.filters.float(), wavs)


class SpectrogramNorm(nn.Module):
    """Zero mean and unit standard deviation; padded frames neither count nor change.

    Parameters
    ----------
    axis : {"utterance", "bin", "frame"}
        Over what the statistics are taken: all values of an utterance; each frequency bin over time; or each frame over
        its bins (Xie et al., ICASSP 2019). "speaker" is the old spelling of ``speaker_normalization="features"``.
    speaker_normalization : {"none", "features", "embeddings", "features+embeddings"}
        With "features" and "features+embeddings" the mean of each bin and the common deviation of all bins over all
        utterances of a speaker take the place of the statistics of ``axis``. Where ``forward`` is given no statistics,
        they are taken over the utterance.

    Example
    -------
    >>> feats = SpectrogramNorm()(Spectrogram()(torch.randn(1, 16000)))
    >>> bool(feats.mean().abs() < 1e-4), bool((feats.std() - 1).abs() < 1e-3)
    (True, True)
    """

    DIMS: ClassVar = {"utterance": (1, 2), "bin": (1,), "frame": (2,)}  # of the mean

    def __init__(
        self,
        axis: Literal["utterance", "bin", "frame", "speaker"] = "utterance",
        speaker_normalization: Literal["none", "features", "embeddings", "features+embeddings"] = "none",
    ) -> None:
        super().__init__()
        if axis == "speaker":
            axis = "utterance"
            speaker_normalization = "features" if speaker_normalization == "none" else speaker_normalization
        if axis not in self.DIMS:
            raise ValueError(f"axis of normalisation must be one of {', '.join(self.DIMS)}, not {axis!r}")
        self.axis = axis
        self.speaker_normalization = check_mode(speaker_normalization)

    def forward(self, feats: Tensor, lengths: Tensor | None = None, speaker: Tensor | None = None) -> Tensor:
        """Normalise spectrograms; the shape stays.

        Parameters
        ----------
        feats : torch.Tensor
            Spectrograms, [B, T', F].
        lengths : torch.Tensor, optional
            Relative lengths, [B].
        speaker : torch.Tensor, optional
            `SpeakerStatistics.features` of the speaker of all utterances, [F + 1], or of that of each, [B, F + 1].

        Raises
        ------
        ValueError
            If statistics of a speaker are given and ``speaker_normalization`` does not say so.
        """
        by_speaker = "features" in self.speaker_normalization
        mask = frame_mask(count_frames(feats, lengths), feats.shape[1]).unsqueeze(-1)
        if speaker is not None:
            if not by_speaker:
                mode = self.speaker_normalization
                raise ValueError(f"statistics of a speaker need speaker_normalization='features'; it is {mode!r}")
            speaker = speaker.to(feats.device).unsqueeze(-2)
            return (feats - speaker[..., :-1]) * mask / (speaker[..., -1:] + 1e-5)
        dims = self.DIMS["bin" if by_speaker else self.axis]
        count = _sum(mask.expand_as(feats), dims).clamp(min=1)
        centred = (feats - _sum(feats * mask, dims) / count) * mask
        variance = _sum(centred.square(), dims) / count
        if by_speaker:  # one deviation for all bins, each of as many frames
            variance = variance.mean(2, keepdim=True)
        return centred / (variance.clamp(min=1e-20).sqrt() + 1e-5)  # the root has no slope at 0


def _sum(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    for dim in reversed(dims):  # one after the other: onnxruntime loses digits in long sums
        x = x.sum(dim, keepdim=True)
    return x
