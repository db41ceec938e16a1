"""What SpeechBrain's ``EncoderClassifier`` expects of a model folder besides the four modules."""

from __future__ import annotations

from collections.abc import Sequence

from speechbrain.dataio.encoder import CategoricalEncoder
from torch import Tensor, nn
from torch.nn import functional


class LabelEncoder(CategoricalEncoder):  # type: ignore[misc]
    """SpeechBrain's label encoder, which knows how many labels it has once it is loaded.

    SpeechBrain's own one warns at the first label it decodes that ``expect_len`` was never called.

    Example
    -------
    >>> encoder = LabelEncoder.from_labels(["happy", "sad"])
    >>> encoder.decode_ndim([1, 0])
    ['sad', 'happy']
    """

    @classmethod
    def from_labels(cls, labels: Sequence[str]) -> LabelEncoder:
        """Make an encoder that gives each label its position as index."""
        encoder = cls()
        encoder.update_from_iterable(labels, sequence_input=False)
        encoder.expect_len(len(labels))
        return encoder

    def _set_extras(self, extras: dict[str, object]) -> None:
        """Finish loading: SpeechBrain calls it after the labels are read."""
        super()._set_extras(extras)
        self.expect_len(len(self))


class UnitLength(nn.Module):
    """Scale embeddings to unit length: what ``encode_batch(wavs, normalize=True)`` applies.

    The losses and the cosine compare embeddings at this scale.

    Example
    -------
    >>> import torch
    >>> UnitLength()(torch.tensor([[[3.0, 4.0]]]))
    tensor([[[0.6000, 0.8000]]])
    """

    def forward(self, embeddings: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Scale ``embeddings`` [B, 1, E]; ``lengths`` [B] are SpeechBrain's and have no effect."""
        return functional.normalize(embeddings, dim=-1)
