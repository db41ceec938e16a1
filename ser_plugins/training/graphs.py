"""CUDA graphs of an encoder in training: a GPU waits for the launch of the many kernels of a small network."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from ser_plugins.distributed import rank_and_size
from ser_plugins.lengths import count_frames
from ser_plugins.training.modules import unwrap

MOST_SHAPES = 16  # each takes memory for its inputs, outputs and gradients


class EncoderGraphs:
    """Run an encoder in training through CUDA graphs: one captured forward and backward pass for each shape of a batch.

    The shapes share the memory of their activations, since one is done before the next begins. Everything else runs
    without a graph: the CPU, several processes, encoders that are compiled or not ``capturable``, batches with padding,
    features that need a gradient, and shapes beyond the first sixteen.

    Example
    -------
    >>> from ser_plugins import GhostVLAD, SEResNet34, UtteranceEncoder
    >>> encoder = UtteranceEncoder(SEResNet34(), GhostVLAD(128))
    >>> EncoderGraphs()(encoder, torch.randn(2, 100, 257), torch.ones(2)).shape
    torch.Size([2, 1, 512])
    """

    def __init__(self) -> None:
        self.passes: dict[tuple[int, torch.Size, torch.dtype | None], nn.Module] = {}
        self.pool: Any = None

    def __call__(self, encoder: nn.Module, feats: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed ``feats`` [B, T', F] as ``encoder(feats, lengths)`` does."""
        if not usable(encoder, feats):
            return encoder(feats, lengths)  # type: ignore[no-any-return]
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
        key = id(encoder), feats.shape, dtype
        full = key not in self.passes and len(self.passes) == MOST_SHAPES
        if full or feats.requires_grad or bool((count_frames(feats, lengths) < feats.shape[1]).any()):
            return encoder(feats, lengths)  # type: ignore[no-any-return]
        if key not in self.passes:
            self.passes[key] = self._capture(encoder, feats, dtype)
        with torch.autocast("cuda", enabled=False):
            return self.passes[key](feats)  # type: ignore[no-any-return]

    def clear(self) -> None:
        """Free the graphs and their memory."""
        self.passes.clear()
        self.pool = None

    def _capture(self, encoder: nn.Module, feats: Tensor, dtype: torch.dtype | None) -> nn.Module:
        """Capture a shape. The warm-up passes change the running statistics, which are restored."""
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        kept = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
        with torch.autocast("cuda", enabled=False), warnings.catch_warnings():
            # The warm-up runs in another stream than the training, as PyTorch recommends.
            warnings.filterwarnings("ignore", "The AccumulateGrad node's stream")
            passes = _Unpadded(encoder, dtype)
            torch.cuda.make_graphed_callables(passes, (feats.clone(),), allow_unused_input=True, pool=self.pool)
        for name, buffer in encoder.named_buffers():
            buffer.copy_(kept[name])
        return passes


def usable(encoder: nn.Module, feats: Tensor) -> bool:
    """True where the passes of an encoder can be captured: on a GPU, in one process, not compiled."""
    compiled = unwrap(encoder) is not encoder  # the wrapper has all attributes of what it wraps
    capturable = getattr(encoder, "capturable", False) and not compiled
    return bool(capturable and feats.device.type == "cuda" and rank_and_size()[1] == 1)


class _Unpadded(nn.Module):
    """Encode batches without padding under an autocast of its own, which must not cache weights between calls."""

    def __init__(self, encoder: nn.Module, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.dtype = dtype

    def forward(self, feats: Tensor) -> Tensor:
        with torch.autocast("cuda", self.dtype, enabled=self.dtype is not None, cache_enabled=False):
            return self.encoder(feats)  # type: ignore[no-any-return]
