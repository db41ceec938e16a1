"""Subtraction of the mean embedding of each speaker."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ser_plugins.audio.speaker import check_mode
from ser_plugins.models.encoder import center_by_speaker


class SpeakerCentering:
    """Subtract from each embedding the mean of its speaker's, where embeddings are speaker-normalised.

    Parameters
    ----------
    speaker_normalization : {"none", "features", "embeddings", "features+embeddings"}
        ``embeddings`` and ``features+embeddings`` subtract.

    Raises
    ------
    ValueError
        If ``speaker_normalization`` is none of these.

    Example
    -------
    >>> SpeakerCentering("features+embeddings")(torch.tensor([[[1.0]], [[3.0]], [[5.0]]]), ["a", "a", "b"]).flatten()
    tensor([-1.,  1.,  0.])
    """

    def __init__(self, speaker_normalization: str = "none") -> None:
        self.active = "embeddings" in check_mode(speaker_normalization)

    def __call__(
        self, embeddings: Tensor, speakers: Sequence[str], repeat: Callable[[Tensor], Tensor] = lambda index: index
    ) -> Tensor:
        """Center ``embeddings`` [N, 1, E]; ``repeat`` repeats the speakers for the copies that augmenters add."""
        if not self.active:
            return embeddings
        index = torch.from_numpy(np.unique(speakers, return_inverse=True)[1]).to(embeddings.device)
        return center_by_speaker(embeddings.squeeze(1), repeat(index)).unsqueeze(1)
