"""Where the utterances lie that a model was trained on, and where another one falls among them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ser_plugins.files import atomic_path

MAP = "map.npz"
Floats = NDArray[np.float32]


@dataclass
class EmbeddingMap:
    """Embeddings of the training part on the plane in which they vary most.

    They are scaled to unit length first, as the losses compare them. The plane is that of their two principal
    components: unlike t-SNE it has a place for an utterance that was not there when it was made.

    Attributes
    ----------
    points : numpy.ndarray
        Where the training utterances lie [N, 2].
    emotions : numpy.ndarray
        What each of them is [N], words.
    mean : numpy.ndarray
        What the plane goes through [E].
    axes : numpy.ndarray
        Its two directions [E, 2].

    Example
    -------
    >>> made = EmbeddingMap.fit(np.eye(4, 8, dtype=np.float32), ["sad", "sad", "happy", "calm"])
    >>> bool(np.allclose(made.place(np.eye(4, 8)[2]), made.points[2], atol=1e-6))
    True
    """

    points: Floats
    emotions: NDArray[np.str_]
    mean: Floats
    axes: Floats

    @classmethod
    def fit(cls, embeddings: Floats, emotions: Iterable[str]) -> EmbeddingMap:
        """Find the plane of embeddings [N, E]."""
        from sklearn.decomposition import PCA  # noqa: PLC0415

        units = _units(embeddings)
        found = PCA(2, random_state=0).fit(units)
        axes = found.components_.T.astype(np.float32)
        mean = found.mean_.astype(np.float32)
        return cls((units - mean) @ axes, np.asarray(list(emotions), dtype=str), mean, axes)

    def place(self, embedding: Floats) -> Floats:
        """Place an embedding [E] on the plane [2]."""
        where: Floats = np.dot(_units(embedding) - self.mean, self.axes)
        return where

    def save(self, folder: Path) -> None:
        """Write it into a model folder."""
        with atomic_path(folder / MAP) as part, part.open("wb") as file:
            np.savez(file, **vars(self))

    @classmethod
    def read(cls, folder: Path) -> EmbeddingMap | None:
        """Read it from a model folder; None where that has none."""
        if not (folder / MAP).is_file():
            return None
        with np.load(folder / MAP, allow_pickle=False) as found:
            return cls(**{name: found[name] for name in cls.__dataclass_fields__})


def _units(embeddings: Floats) -> Floats:
    units: Floats = embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True).clip(1e-12).astype(np.float32)
    return units
