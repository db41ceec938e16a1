"""Statistics pooling: frame descriptors to their mean and deviation."""

from __future__ import annotations

import torch
from torch import Tensor

from ser_plugins.lengths import length_mask
from ser_plugins.models.mean_pooling import MeanPooling


class StatisticsPooling(MeanPooling):
    """Mean and standard deviation of the descriptors of an utterance (Snyder et al., ICASSP 2018).

    Parameters
    ----------
    input_size : int, optional
        Size D of a descriptor; `UtteranceEncoder` fills it in from its backbone.

    Example
    -------
    >>> StatisticsPooling(128)(torch.randn(2, 13, 128), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 256])
    """

    def set_input_size(self, input_size: int) -> None:
        """Fill in the size of a descriptor."""
        self.input_size, self.output_size = input_size, 2 * input_size

    def forward(self, descriptors: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pool ``descriptors`` [B, T'', D] with relative ``lengths`` [B] to [B, 2 · D], in float32 or finer."""
        descriptors = descriptors.to(torch.promote_types(descriptors.dtype, torch.float32))
        if lengths is None:
            mask = descriptors.new_ones(*descriptors.shape[:2], 1)
        else:
            mask = length_mask(lengths, descriptors.shape[1]).unsqueeze(-1).to(descriptors.dtype)
        count = mask.sum(1, keepdim=True)
        mean = (descriptors * mask).sum(1, keepdim=True) / count
        variance = ((descriptors - mean) * mask).square().sum(1, keepdim=True) / count
        return torch.cat([mean, variance.clamp(min=1e-10).sqrt()], dim=-1).squeeze(1)  # the root has no slope at 0
