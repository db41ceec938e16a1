"""Features that are computed once for each utterance and stored."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ser_plugins.files import atomic_write

Floats = NDArray[np.floating[Any]]


class StoredFeatures(nn.Module):
    """Base class of features that take long to compute: each utterance is described once.

    A subclass implements `describe` and `settings`. The zeros that pad an utterance in a batch are removed first, so
    that it has the features that it has alone. The key of its features are the settings and its samples: only whole
    utterances without augmentation are found again.

    Attributes
    ----------
    folder : pathlib.Path, optional
        Where the features are stored, one file an utterance; None keeps them in memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, Tensor] = {}
        self.folder: Path | None = None

    def forward(self, wavs: Tensor) -> Tensor:
        """Compute the features [B, T', F], float32, of ``wavs`` [B, T]; shorter utterances are padded with zeros."""
        found = [self._recall(wav) for wav in wavs.detach().float().cpu()]
        return pad_sequence(found, batch_first=True).to(wavs.device, torch.float32)

    def describe(self, samples: NDArray[np.float32]) -> Floats:
        """Compute the features, [T', F] or [F] where there is one frame, of the samples [T] of an utterance."""
        raise NotImplementedError

    def settings(self) -> str:
        """Describe what the features depend on, besides the samples."""
        raise NotImplementedError

    def _recall(self, wav: Tensor) -> Tensor:
        heard = wav.nonzero()
        samples = wav[: int(heard[-1]) + 1].numpy() if len(heard) else wav.numpy()
        key = hashlib.sha256(self.settings().encode() + samples.tobytes()).hexdigest()
        if self.folder is not None:
            return torch.from_numpy(np.atleast_2d(self._find(self.folder / key[:2] / f"{key}.npy", samples)))
        if key not in self.known:
            self.known[key] = torch.from_numpy(np.atleast_2d(self.describe(samples)))
        return self.known[key]

    def _find(self, file: Path, samples: NDArray[np.float32]) -> Floats:
        """Read features from their file; compute and write them where there is none."""
        if file.is_file():
            stored: Floats = np.load(file)
            return stored
        features, content = self.describe(samples), io.BytesIO()
        np.save(content, features)
        atomic_write(file, content.getvalue())
        return features


def keep_features(compute_features: object, cache_folder: str | Path) -> None:
    """Store features with the prepared audio, and reuse them; those of other modules are fast enough to compute."""
    if isinstance(compute_features, StoredFeatures):
        compute_features.folder = Path(cache_folder) / "features"
