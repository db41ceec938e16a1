"""Statistics of a speaker, by which spectrograms and embeddings are normalised."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ser_plugins.errors import InputError

SPEAKER_NORMALIZATION = ("none", "features", "embeddings", "features+embeddings")
"""What is normalised by speaker: nothing, the spectrograms (S7), the embeddings, or both (S8)."""


@dataclass(frozen=True)
class SpeakerStatistics:
    """What is known of a speaker from recordings of this speaker alone.

    Parameters
    ----------
    features : torch.Tensor, optional
        [F + 1], mean of each bin and the common deviation, for `ser_plugins.SpectrogramNorm`.
    embedding : torch.Tensor, optional
        [E], mean embedding, which is subtracted from each embedding of the speaker.

    Example
    -------
    >>> from ser_plugins import Spectrogram, SpectrogramNorm
    >>> feats = Spectrogram()(torch.randn(1, 16000))
    >>> speaker = SpeakerStatistics(SpeakerStatistics.measure_features([feats]))
    >>> SpectrogramNorm(speaker_normalization="features")(feats, speaker=speaker.features).shape
    torch.Size([1, 101, 257])
    """

    features: Tensor | None = None
    embedding: Tensor | None = None

    @staticmethod
    def measure_features(utterances: Iterable[Tensor]) -> Tensor:
        """Measure the mean of each bin, and the deviation of all bins from their means, over all frames of a speaker.

        Parameters
        ----------
        utterances : iterable of torch.Tensor
            Spectrograms of one speaker, each [1, T', F] or [T', F]; blank frames do not count.

        Returns
        -------
        torch.Tensor
            [F + 1], float32, on the CPU.

        Raises
        ------
        InputError
            If no utterance has a frame that is not blank.
        """
        count, total, squares = 0, torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        for feats in utterances:
            frames = feats.reshape(-1, feats.shape[-1]).cpu().double()
            frames = frames[(frames != 0).any(-1)]
            count, total, squares = count + len(frames), total + frames.sum(0), squares + frames.square().sum(0)
        if not count:
            raise InputError("the speaker has no frame that is not blank; give recordings with speech")
        mean = total / count
        variance = (squares / count - mean.square()).mean().clamp(min=0)
        return torch.cat([mean, variance.sqrt().unsqueeze(0)]).float()


def check_mode(speaker_normalization: str) -> str:
    """Return the mode, if it is one of ``SPEAKER_NORMALIZATION``; ValueError otherwise."""
    if speaker_normalization not in SPEAKER_NORMALIZATION:
        modes = ", ".join(SPEAKER_NORMALIZATION)
        raise ValueError(f"speaker_normalization must be one of {modes}, not {speaker_normalization!r}")
    return speaker_normalization
