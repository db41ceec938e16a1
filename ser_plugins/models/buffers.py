"""Buffers whose sizes a state dict sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn


def resize_on_load(module: nn.Module, **axes: Sequence[int]) -> None:
    """Let buffers take, along some axes, the sizes that they have in a state dict, before it is loaded.

    PyTorch refuses weights of another shape, and what scikit-learn fits is as large as its data.

    Parameters
    ----------
    module : torch.nn.Module
        The module.
    **axes : sequence of int
        Of each buffer, by its name, the axes that may change. Along others the shapes must agree.

    Example
    -------
    >>> import torch
    >>> module = nn.Module()
    >>> module.register_buffer("known", torch.zeros(0, 2))
    >>> resize_on_load(module, known=(0,))
    >>> module.load_state_dict({"known": torch.ones(3, 2)})
    <All keys matched successfully>
    """
    module.register_load_state_dict_pre_hook(partial(_resize, axes))  # type: ignore[no-untyped-call]


def _resize(
    axes: Mapping[str, Sequence[int]], module: nn.Module, state_dict: Mapping[str, Any], prefix: str, *_: Any
) -> None:
    for name, free in axes.items():
        own, stored = getattr(module, name), state_dict.get(prefix + name)
        if stored is not None and stored.dim() == own.dim():
            sizes = [stored.shape[axis] if axis in free else size for axis, size in enumerate(own.shape)]
            setattr(module, name, own.new_zeros(sizes))
