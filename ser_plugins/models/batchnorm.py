"""Batch normalisation that padding and the number of processes do not change."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase

from ser_plugins.distributed import rank_and_size, total


class MaskedBatchNorm(_NormBase):
    """Batch normalisation of [B, C, ...] whose statistics see no padded frame, and whose padded frames are zero.

    Its weights and state dict are those of ``torch.nn.BatchNorm2d``. In training under ``torch.distributed`` the
    statistics are those of all processes, on a CPU too. It is no subclass of PyTorch's batch normalisations because
    SpeechBrain turns those into ``SyncBatchNorm``, which takes no mask and no CPU.

    Parameters
    ----------
    num_features : int
        Channels, C.
    eps, momentum, affine, track_running_stats
        As in ``torch.nn.BatchNorm2d``.

    Example
    -------
    >>> x = torch.randn(2, 4, 3, 5)
    >>> mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])[:, None, :, None]
    >>> norm = MaskedBatchNorm(4)
    >>> bool((norm(x, mask)[1, :, 1:] == 0).all())
    True
    """

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalise ``x`` [B, C, ...]; ``mask`` [B, 1, ...] is zero where it is padded, None where nothing is."""
        if self.training and (mask is not None or rank_and_size()[1] > 1):
            wide = torch.promote_types(x.dtype, torch.float32)
            return self._masked(x.to(wide), None if mask is None else mask.to(wide)).to(x.dtype)
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        out = functional.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            self._rate(),
            self.eps,
        )
        return out if mask is None else out * mask

    def _masked(self, x: Tensor, mask: Tensor | None) -> Tensor:
        dims = (0, *range(2, x.dim()))
        share = x.new_ones(()) if mask is None else mask.mean()
        count = total(share * (x.numel() // x.shape[1]))
        mean = total((x if mask is None else x * mask).sum(dims, keepdim=True)) / count
        centred = x - mean
        centred = centred if mask is None else centred * mask
        var = total(centred.square().sum(dims, keepdim=True)) / count
        self._update(mean.detach().flatten(), (var.detach() * count / (count - 1).clamp(min=1)).flatten())
        normal = centred * torch.rsqrt(var + self.eps)
        if not self.affine:
            return normal
        shape = (1, -1, *[1] * (x.dim() - 2))
        bias = self.bias.view(shape)
        return normal * self.weight.view(shape) + (bias if mask is None else bias * mask)

    def _update(self, mean: Tensor, var: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self._rate())
        self.running_var.lerp_(var, self._rate())

    def _rate(self) -> float:
        if self.momentum is not None:
            return self.momentum
        return 1.0 / max(1.0, float(self.num_batches_tracked or 0))
