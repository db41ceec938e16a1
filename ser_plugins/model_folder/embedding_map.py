"""A map of the training utterances: their embeddings projected onto a plane."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ser_plugins.errors import InputError
from ser_plugins.files import atomic_path

MAP = "map.npz"
Floats = NDArray[np.float32]


@dataclass
class EmbeddingMap:
    """Training embeddings projected onto their first two principal components.

    Embeddings are scaled to unit length first, as in the losses. Unlike t-SNE, principal components project
    embeddings that were not part of the fit.

    Attributes
    ----------
    points : numpy.ndarray
        Projected training embeddings [N, 2].
    emotions : numpy.ndarray
        Their labels [N], strings.
    mean : numpy.ndarray
        Mean of the scaled training embeddings [E].
    axes : numpy.ndarray
        Principal components [E, 2].

    Example
    -------
    >>> embedding_map = EmbeddingMap.fit(np.eye(4, 8, dtype=np.float32), ["sad", "sad", "happy", "calm"])
    >>> bool(np.allclose(embedding_map.project(np.eye(4, 8)[2]), embedding_map.points[2], atol=1e-6))
    True
    """

    points: Floats
    emotions: NDArray[np.str_]
    mean: Floats
    axes: Floats

    @classmethod
    def fit(cls, embeddings: Floats, emotions: Iterable[str]) -> EmbeddingMap:
        """Fit the map to embeddings [N, E] with their emotions."""
        from sklearn.decomposition import PCA  # noqa: PLC0415

        units = _units(embeddings)
        found = PCA(2, random_state=0).fit(units)
        axes = found.components_.T.astype(np.float32)
        mean = found.mean_.astype(np.float32)
        return cls((units - mean) @ axes, np.asarray(list(emotions), dtype=str), mean, axes)

    def project(self, embedding: Floats) -> Floats:
        """Project an embedding [E] onto the map [2]."""
        point: Floats = np.dot(_units(embedding) - self.mean, self.axes)
        return point

    def save(self, folder: Path) -> None:
        """Save the map in a model folder."""
        with atomic_path(folder / MAP) as part, part.open("wb") as file:
            np.savez(file, **vars(self))

    @classmethod
    def read(cls, folder: Path) -> EmbeddingMap | None:
        """Read the map of a model folder; None if it has none."""
        if not (folder / MAP).is_file():
            return None
        try:
            with np.load(folder / MAP, allow_pickle=False) as found:
                return cls(**{name: found[name] for name in cls.__dataclass_fields__})
        except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
            raise InputError(f"{folder / MAP} is no map; delete it, or export the folder again") from error


def _units(embeddings: Floats) -> Floats:
    units: Floats = embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True).clip(1e-12).astype(np.float32)
    return units
