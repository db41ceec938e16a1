"""Batch normalisation that padding and the number of processes do not change."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import SyncBatchNorm, functional
from torch.nn.modules.module import register_module_module_registration_hook

from ser_plugins.distributed import rank_and_size, total


class MaskedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation of [B, C, ...] whose statistics see no padded frame, and whose padded frames are zero.

    Its weights and state dict are those of ``torch.nn.BatchNorm2d``; ``x`` may have any number of dimensions. In
    training under ``torch.distributed`` the statistics are those of all processes, on a CPU too. SpeechBrain calls
    ``SyncBatchNorm.convert_sync_batchnorm``, which therefore leaves it as it is.

    The n-th batch has the share max(momentum, 1 / n) in the running statistics. They are the mean of the first
    1 / momentum batches, and keep nothing of their initial values.

    Parameters
    ----------
    num_features : int
        Channels, C.
    eps, momentum, affine
        As in ``torch.nn.BatchNorm2d``; with a momentum of None the running statistics are the mean of all batches.

    Example
    -------
    >>> x = torch.randn(2, 4, 3, 5)
    >>> mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])[:, None, :, None]
    >>> norm = MaskedBatchNorm(4)
    >>> bool((norm(x, mask)[1, :, 1:] == 0).all())
    True
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True) -> None:
        super().__init__(num_features, eps, momentum, affine)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalise ``x`` [B, C, ...]; ``mask`` [B, 1, ...] is zero where it is padded, None where nothing is."""
        if self.training and (mask is not None or rank_and_size()[1] > 1):
            return self._masked(x, mask)
        if self.training:
            # With a momentum of 1 PyTorch writes the statistics of a batch into these. Their share depends on a count,
            # whose value must not be waited for, and PyTorch takes no tensor as momentum.
            mean, var = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
            out = functional.batch_norm(x, mean, var, self.weight, self.bias, True, 1.0, self.eps)
            self._update(mean, var)
            return out
        out = functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )
        return out if mask is None else out.mul_(mask)  # its gradient needs the input alone

    def _masked(self, x: Tensor, mask: Tensor | None) -> Tensor:
        shape = (1, -1, *[1] * (x.dim() - 2))
        wide = torch.promote_types(x.dtype, torch.float32)
        valid = x.new_ones(shape[:1], dtype=wide) if mask is None else mask.to(wide)
        count = total(valid.mean() * (x.numel() // x.shape[1]))
        normal, mean, var = _Normalize.apply(x, valid, count, self.eps)  # type: ignore[no-untyped-call]
        # Detached, for torch.compile takes these for differentiable, and the running averages with them.
        self._update(mean.detach().flatten(), (var.detach() * count / (count - 1).clamp(min=1)).flatten())
        if not self.affine:
            return normal.to(x.dtype, copy=True)  # type: ignore[no-any-return]  # the gradient needs this one
        # In place, and the bias is small until then: what comes out has the memory format of x.
        scaled: Tensor = normal * self.weight.view(shape)
        return scaled.add_(self.bias.view(shape) * valid).to(x.dtype)

    def _update(self, mean: Tensor, var: Tensor) -> None:
        """Let the running statistics follow those of a batch, [C] each."""
        self.num_batches_tracked.add_(1)
        rate = (1 / self.num_batches_tracked.to(self.running_mean.dtype)).clamp(min=self.momentum or 0.0)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
        self.running_var.lerp_(var.to(self.running_var.dtype), rate)


def _keep(parent: nn.Module, name: str, module: nn.Module | None) -> nn.Module | None:
    """Keep a `MaskedBatchNorm` from ``convert_sync_batchnorm``: a ``SyncBatchNorm`` takes no mask and no CPU."""
    present = dict(parent.named_children()).get(name) if isinstance(module, SyncBatchNorm) else None
    return present if isinstance(present, MaskedBatchNorm) else None


register_module_module_registration_hook(_keep)  # type: ignore[arg-type]


class _Normalize(torch.autograd.Function):
    """Zero mean and unit variance of each channel over the valid frames of all processes.

    The gradient is written out (Ioffe and Szegedy, ICML 2015, section 3): derived step by step, it takes twice as many
    passes over tensors of the size of ``x``, and loses their memory format.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, valid: Tensor, count: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        dims = (0, *range(2, x.dim()))
        x = x * valid
        mean = total(x.sum(dims, keepdim=True)) / count
        x.sub_(mean * valid)
        var = total(torch.linalg.vector_norm(x, dim=dims, keepdim=True).square()) / count
        scale = torch.rsqrt(var + eps)
        normal = x.mul_(scale).detach()  # torch.compile loses the gradient of what was changed in place
        ctx.save_for_backward(normal, valid, count, scale)
        ctx.mark_non_differentiable(mean, var)
        return normal, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, None, None, None]:
        normal, valid, count, scale = ctx.saved_tensors
        dims = (0, *range(2, normal.dim()))
        out = gradient * valid
        mean = total(out.sum(dims, keepdim=True)) / count
        slope = total((out * normal).sum(dims, keepdim=True)) / count
        out.addcmul_(normal, slope, value=-1).sub_(mean * valid)
        return out.mul_(scale), None, None, None
