"""The number format that a device computes fastest with."""

from __future__ import annotations

import torch
from speechbrain.utils.distributed import infer_device

from ser_plugins.errors import InputError

AUTO = "auto"
PRECISIONS = ("fp32", "fp16", "bf16")


def choose_precision(name: str, device: str | None) -> str:
    """Resolve the precision ``auto``: bf16 where the device has instructions for it, else fp32.

    A processor without such instructions emulates bf16, several times slower than fp32.

    Parameters
    ----------
    name : {"auto", "fp32", "fp16", "bf16"}
        The setting.
    device : str, optional
        Device of the training, as PyTorch names it; SpeechBrain's choice where it is not given.

    Returns
    -------
    str
        The precision as SpeechBrain names it.

    Raises
    ------
    InputError
        If the precision is unknown.

    Example
    -------
    >>> choose_precision("fp16", "cpu")
    'fp16'
    """
    if name in PRECISIONS:
        return name
    if name != AUTO:
        raise InputError(f"--precision {name}: choose one of {', '.join((AUTO, *PRECISIONS))}")
    return "bf16" if _has_bf16(torch.device(device or infer_device())) else "fp32"


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # PyTorch has no public question for it. Processors with AMX also have these instructions.
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
