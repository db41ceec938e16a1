"""Signals of any rate to 16 kHz, in bounded memory. PyTorch is imported only for its tensors."""

from __future__ import annotations

from functools import lru_cache
from math import ceil, gcd
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ser_plugins.audio.reading import SAMPLE_RATE, Samples
from ser_plugins.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

HIGHEST_RATE = 768_000  # Hz
ZERO_CROSSINGS, ROLLOFF = 6, 0.99  # torchaudio's defaults
LARGEST_KERNEL = 1 << 21  # numbers


def resample(signal: Tensor, rate: int) -> Tensor:
    """Resample a signal [T] to 16 kHz, by a sinc under a Hann window: torchaudio's own.

    torchaudio stores the filter as a matrix of (rate × 16000) / gcd² numbers: 70,000 for 44.1 kHz, but 128 million for
    8013 Hz. There, `resample_array` applies the same filter as a polyphase one, of 12 · max(rate, 16000) numbers at
    most.

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
    >>> import torch
    >>> resample(torch.zeros(44101), 44101).shape
    torch.Size([16000])
    """
    up, down = _ratio(rate)
    if up == down:
        return signal
    if down * up <= LARGEST_KERNEL:
        from torchaudio.functional import resample as resample_by_convolution  # noqa: PLC0415 — takes a while

        converted: Tensor = resample_by_convolution(signal, rate, SAMPLE_RATE)
        return converted
    import torch  # noqa: PLC0415 — `resample_array` works without it

    return torch.from_numpy(resample_array(signal.cpu().numpy(), rate)).to(signal.device)


def resample_array(samples: Samples, rate: int) -> Samples:
    """Resample ``samples`` [T] to 16 kHz without PyTorch; see `resample`.

    SciPy's ``resample_poly`` has the same result, and takes two seconds to import.

    Example
    -------
    >>> resample_array(np.zeros(44100, np.float32), 44100).shape
    (16000,)
    """
    up, down = _ratio(rate)
    if up == down:
        return samples
    kernel = sinc_filter(up, down) * up
    middle, reach = len(kernel) // 2, len(kernel) // 2 // up + 1
    windows = sliding_window_view(np.pad(samples, reach), 2 * reach + 1)  # row t: the samples around sample t
    out = np.empty(-(-len(samples) * up // down), np.float32)
    for phase in range(min(up, len(out))):  # the samples of one phase have the same weights
        first, rest = divmod(phase * down, up)
        places = middle + rest - up * np.arange(-reach, reach + 1)
        weights = np.where((places >= 0) & (places < len(kernel)), kernel.take(places, mode="clip"), 0)
        out[phase::up] = windows[first::down] @ weights
    return out


def _ratio(rate: int) -> tuple[int, int]:
    """Return by how much a rate is multiplied, then divided, to become 16 kHz."""
    if not 1 <= rate <= HIGHEST_RATE:
        raise InputError(f"a rate of {rate} Hz is no recording's; give 1 to {HIGHEST_RATE} Hz")
    divisor = gcd(rate, SAMPLE_RATE)
    return SAMPLE_RATE // divisor, rate // divisor


@lru_cache(maxsize=2)
def sinc_filter(up: int, down: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Sample the impulse response of torchaudio's filter at ``up`` times the old rate, ``down`` times the new one."""
    cutoff = min(up, down) * ROLLOFF
    half = ceil(ZERO_CROSSINGS * up * down / cutoff)
    time = np.clip(np.arange(half + 1) * (cutoff / (up * down)), 0, ZERO_CROSSINGS)  # in zero crossings
    right = np.sinc(time) * np.cos(time * (np.pi / 2 / ZERO_CROSSINGS)) ** 2 * (cutoff / down / up)
    return np.concatenate([right[:0:-1], right]).astype(np.float32)
