"""An encoder's passes in training as CUDA graphs: a small network leaves a GPU waiting for kernels to be launched."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from ser_plugins.lengths import count_frames

MOST_SHAPES = 16  # each takes memory for its inputs, outputs and gradients


class EncoderGraphs:
    """Forward and backward pass of an encoder, captured for each shape of a batch and launched as a whole.

    The shapes share the memory of their activations, for one is done before the next begins. Batches with padding,
    features that need a gradient and shapes beyond the first sixteen take the usual way, as all does that is not
    trained.

    Parameters
    ----------
    encoder : torch.nn.Module
        ``(feats [B, T', F], lengths) -> [B, 1, E]`` with gradients for all its weights, on a GPU. In training it must
        do the same for each batch of a shape without padding, and not look at values.
    """

    def __init__(self, encoder: nn.Module) -> None:
        self.encoder = encoder
        self.passes: dict[tuple[torch.Size, torch.dtype | None], nn.Module] = {}
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, feats: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed ``feats`` [B, T', F], as the encoder does."""
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
        key = feats.shape, dtype
        full = key not in self.passes and len(self.passes) == MOST_SHAPES
        if full or feats.requires_grad or bool((count_frames(feats, lengths) < feats.shape[1]).any()):
            return self.encoder(feats, lengths)  # type: ignore[no-any-return]
        if key not in self.passes:
            self.passes[key] = self._capture(feats, dtype)
        with torch.autocast("cuda", enabled=False):
            return self.passes[key](feats)  # type: ignore[no-any-return]

    def _capture(self, feats: Tensor, dtype: torch.dtype | None) -> nn.Module:
        """Capture; what trying it out does to the running statistics is undone."""
        kept = {name: buffer.clone() for name, buffer in self.encoder.named_buffers()}
        with torch.autocast("cuda", enabled=False), warnings.catch_warnings():
            # The trials are of another stream than the training, which is as it should be.
            warnings.filterwarnings("ignore", "The AccumulateGrad node's stream")
            passes = _Unpadded(self.encoder, dtype)
            torch.cuda.make_graphed_callables(passes, (feats.clone(),), allow_unused_input=True, pool=self.pool)
        for name, buffer in self.encoder.named_buffers():
            buffer.copy_(kept[name])
        return passes


class _Unpadded(nn.Module):
    """An encoder of batches without padding, with an autocast of its own, which must keep no weights for later."""

    def __init__(self, encoder: nn.Module, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.dtype = dtype

    def forward(self, feats: Tensor) -> Tensor:
        with torch.autocast("cuda", self.dtype, enabled=self.dtype is not None, cache_enabled=False):
            return self.encoder(feats)  # type: ignore[no-any-return]
