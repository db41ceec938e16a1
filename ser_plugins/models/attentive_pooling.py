"""Attentive pooling: frame descriptors to their weighted average."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ser_plugins.lengths import length_mask
from ser_plugins.models.mean_pooling import MeanPooling


class AttentivePooling(MeanPooling):
    """Average of the descriptors of an utterance, weighted by a learned attention.

    The pooling of Mirsamadi, Barsoum and Zhang, ICASSP 2017: ``z = sum_t a_t h_t`` with ``a_t = softmax_t(u . h_t)``
    over the frames of the utterance. The attention vector u starts at zero, which is the plain mean.

    Parameters
    ----------
    input_size : int, optional
        Size D of a descriptor; `UtteranceEncoder` fills it in from its backbone.

    Attributes
    ----------
    input_size, output_size : int or None
        D; None until the size of a descriptor is known.

    Example
    -------
    >>> AttentivePooling(128)(torch.randn(2, 13, 128), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 128])
    """

    def set_input_size(self, input_size: int) -> None:
        """Make the attention vector for descriptors of ``input_size`` values."""
        self.input_size = self.output_size = input_size
        self.attention = nn.Parameter(torch.zeros(input_size))

    def forward(self, descriptors: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pool ``descriptors`` [B, T'', D] with relative ``lengths`` [B] to [B, D], in float32 or finer.

        Raises
        ------
        ValueError
            If the size of a descriptor is not known yet.
        """
        if self.input_size is None:
            raise ValueError("AttentivePooling has no input_size; give it, or build UtteranceEncoder with it")
        with torch.autocast(descriptors.device.type, enabled=False):
            descriptors = descriptors.to(self.attention.dtype)
            scores = descriptors @ self.attention
            if lengths is not None:
                scores = scores.masked_fill(~length_mask(lengths, descriptors.shape[1]), -torch.inf)
            return (scores.softmax(1).unsqueeze(1) @ descriptors).squeeze(1)
