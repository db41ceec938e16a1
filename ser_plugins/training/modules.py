"""Modules of a Brain: what is trained, and what wrappers hide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel


def has_weights(module: nn.Module) -> bool:
    """True where gradients train the module.

    Example
    -------
    >>> has_weights(nn.Linear(1, 1)), has_weights(nn.Identity())
    (True, False)
    """
    return any(weight.requires_grad for weight in module.parameters())


def unwrap(module: nn.Module) -> nn.Module:
    """Return what DDP and torch.compile wrap: its weights have the names that it is loaded by."""
    # SpeechBrain compiles by torch.compile, whose wrapper has no public name, and no public way to what it wraps.
    module = module.module if isinstance(module, DistributedDataParallel) else module
    return module._orig_mod if isinstance(module, OptimizedModule) else module


def weight_groups(modules: Mapping[str, nn.Module]) -> dict[str, list[nn.Parameter]]:
    """Divide the weights of ``modules`` into those of the encoder's ``backbone`` and the ``rest``.

    Each group has an optimizer of its own: a transferred backbone may learn more slowly or later, and SpeechBrain clips
    the gradients of an optimizer's first group alone.
    """
    encoder = unwrap(modules["embedding_model"])
    backbone = list(getattr(encoder, "backbone", encoder).parameters())
    own = {id(weight) for weight in backbone}
    rest = [weight for module in modules.values() for weight in module.parameters() if id(weight) not in own]
    return {name: weights for name, weights in {"backbone": backbone, "rest": rest}.items() if weights}


def set_epoch(loader: Any, epoch: int) -> None:
    """Set the epoch of a loader or its batch sampler: SpeechBrain does so under DDP only."""
    parts: list[Any] = [loader, getattr(loader, "batch_sampler", None)]
    for part in parts:
        if hasattr(part, "set_epoch"):
            part.set_epoch(epoch)
