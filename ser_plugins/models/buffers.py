"""Buffers whose sizes a state dict sets, and buffers that a state dict may lack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
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


def default_on_load(module: nn.Module, **values: float) -> None:
    """Let a state dict lack buffers that a module has had since a later version.

    Parameters
    ----------
    module : torch.nn.Module
        The module.
    **values : float
        What a buffer, by its name, is filled with if a state dict has weights of the module but not this one.

    Example
    -------
    >>> import torch
    >>> module = nn.Linear(1, 1, bias=False)
    >>> module.register_buffer("temperature", torch.tensor(3.0))
    >>> default_on_load(module, temperature=1.0)
    >>> module.load_state_dict({"weight": torch.zeros(1, 1)})
    <All keys matched successfully>
    >>> module.temperature
    tensor(1.)
    """
    module.register_load_state_dict_pre_hook(partial(_fill, values))  # type: ignore[no-untyped-call]


def _fill(values: Mapping[str, float], module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    if any(name.startswith(prefix) for name in state_dict):  # else the state dict is not of this module
        for name, value in values.items():
            state_dict.setdefault(prefix + name, torch.full_like(getattr(module, name), value))
