"""Mean pooling: frame descriptors to their average."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ser_plugins.lengths import length_mask


class MeanPooling(nn.Module):
    """Average of the descriptors of an utterance; SpeechBrain's ``StatisticsPooling`` adds noise to it.

    Parameters
    ----------
    input_size : int, optional
        Size D of a descriptor; `UtteranceEncoder` fills it in from its backbone.

    Example
    -------
    >>> MeanPooling(128)(torch.randn(2, 13, 128), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 128])
    """

    capturable = True  # looks at no values of a batch without padding

    def __init__(self, input_size: int | None = None) -> None:
        super().__init__()
        self.input_size: int | None = None
        self.output_size: int | None = None
        if input_size is not None:
            self.set_input_size(input_size)

    def set_input_size(self, input_size: int) -> None:
        """Fill in the size of a descriptor."""
        self.input_size = self.output_size = input_size

    def forward(self, descriptors: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pool ``descriptors`` [B, T'', D] with relative ``lengths`` [B] to [B, D], in float32 or finer."""
        descriptors = descriptors.to(torch.promote_types(descriptors.dtype, torch.float32))
        if lengths is None:
            return descriptors.mean(1)
        mask = length_mask(lengths, descriptors.shape[1]).unsqueeze(-1)
        return (descriptors * mask).sum(1) / mask.sum(1)
