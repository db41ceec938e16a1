"""Signals of any rate to 16 kHz, in bounded memory."""

from __future__ import annotations

from functools import lru_cache
from math import ceil, gcd
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ser_plugins.audio.reading import SAMPLE_RATE
from ser_plugins.errors import InputError

HIGHEST_RATE = 768_000  # Hz
ZERO_CROSSINGS, ROLLOFF = 6, 0.99  # torchaudio's defaults
LARGEST_KERNEL = 1 << 21  # numbers


def resample(signal: Tensor, rate: int) -> Tensor:
    """Resample a signal [T] to 16 kHz, by a sinc under a Hann window: torchaudio's own.

    torchaudio stores the filter as a matrix of (rate × 16000) / gcd² numbers: 70,000 for 44.1 kHz, but 128 million for
    8013 Hz. There, SciPy applies the same filter as a polyphase one, of 12 · max(rate, 16000) numbers at most.

    Parameters
    ----------
    signal : torch.Tensor
        float32 samples [T].
    rate : int
        Its samples per second.

    Returns
    -------
    torch.Tensor
        float32 samples [⌈T · 16000 / rate⌉], on the same device.

    Raises
    ------
    InputError
        If the rate is not between 1 Hz and 768 kHz.

    Example
    -------
    >>> resample(torch.zeros(44101), 44101).shape
    torch.Size([16000])
    """
    if not 1 <= rate <= HIGHEST_RATE:
        raise InputError(f"a rate of {rate} Hz is no recording's; give 1 to {HIGHEST_RATE} Hz")
    if rate == SAMPLE_RATE:
        return signal
    divisor = gcd(rate, SAMPLE_RATE)
    down, up = rate // divisor, SAMPLE_RATE // divisor
    if down * up <= LARGEST_KERNEL:
        from torchaudio.functional import resample as resample_by_convolution  # noqa: PLC0415 — takes a while

        converted: Tensor = resample_by_convolution(signal, rate, SAMPLE_RATE)
        return converted
    from scipy.signal import resample_poly  # noqa: PLC0415 — takes a second

    polyphase = resample_poly(signal.cpu().numpy(), up, down, window=sinc_filter(up, down))
    return torch.from_numpy(np.ascontiguousarray(polyphase, np.float32)).to(signal.device)


@lru_cache(maxsize=2)
def sinc_filter(up: int, down: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Sample the impulse response of torchaudio's filter at ``up`` times the old rate, ``down`` times the new one."""
    cutoff = min(up, down) * ROLLOFF
    half = ceil(ZERO_CROSSINGS * up * down / cutoff)
    time = np.clip(np.arange(half + 1) * (cutoff / (up * down)), 0, ZERO_CROSSINGS)  # in zero crossings
    right = np.sinc(time) * np.cos(time * (np.pi / 2 / ZERO_CROSSINGS)) ** 2 * (cutoff / down / up)
    return np.concatenate([right[:0:-1], right]).astype(np.float32)
