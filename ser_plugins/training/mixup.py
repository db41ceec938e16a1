"""Mixup of spectrograms."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Mixup:
    """Mix each spectrogram of a batch with another, and the losses of their labels by the same share.

    Zhang et al., ICLR 2018. One share λ ~ Beta(α, α) a batch, of which the larger part stays with the original.

    Parameters
    ----------
    alpha : float, optional
        α, above 0; small values mix little. None turns it off.

    Raises
    ------
    ValueError
        If ``alpha`` is not above 0.

    Example
    -------
    >>> mixup, scores = Mixup(0.4), torch.randn(3, 2).log_softmax(-1)
    >>> mixup(torch.randn(3, 50, 257)).shape
    torch.Size([3, 50, 257])
    >>> mixup.loss(torch.nn.functional.nll_loss, scores, torch.tensor([0, 1, 1])).shape
    torch.Size([])
    """

    def __init__(self, alpha: float | None = 0.4) -> None:
        if alpha is not None and not (isinstance(alpha, int | float) and alpha > 0):
            raise ValueError(f"alpha of mixup must be above 0, got {alpha!r}; null turns mixup off")
        self.alpha = alpha

    def __call__(self, feats: Tensor) -> Tensor:
        """Mix ``feats`` [B, T', F]; the order and share are kept for `loss`."""
        if self.alpha is None:
            return feats
        share = float(torch.distributions.Beta(self.alpha, self.alpha).sample())
        self.share, self.order = max(share, 1 - share), torch.randperm(len(feats), device=feats.device)
        return self.share * feats + (1 - self.share) * feats[self.order]

    def loss(self, criterion: Callable[[Tensor, Tensor], Tensor], scores: Tensor, labels: Tensor) -> Tensor:
        """Loss of ``scores`` [B, C] for the labels [B] of both originals, by their shares."""
        own = criterion(scores, labels)
        if self.alpha is None:
            return own
        return self.share * own + (1 - self.share) * criterion(scores, labels[self.order])
