"""What makes a signal unusable. PyTorch is not imported."""

from __future__ import annotations

import math
from typing import Any

from ser_plugins.errors import InputError

MIN_SECONDS = 0.1
MAX_SECONDS = 600.0  # of an utterance: the network needs some 8 MB a second
SILENT = "it is silent; record it again"
SILENCE = 1e-4  # peak: a lossy copy of silence is not exactly zero
LOUDEST = 2.0**31  # peak: of a file of floats that are whole numbers of 32 bits; powers far beyond it overflow


def check_signal(samples: int, sample_rate: int, peak: float) -> None:
    """Check that a signal can be used.

    Raises
    ------
    InputError
        If it is empty or shorter than 0.1 s, or its peak is NaN, infinite or beyond 2³¹.
    """
    if not samples:
        raise InputError("it holds no samples; copy it again")
    if samples < MIN_SECONDS * sample_rate:
        raise InputError(f"{samples / sample_rate:.3f} s of audio is too short; give {MIN_SECONDS} s or more")
    if not math.isfinite(peak):
        raise InputError("audio holds NaN or infinity; write the file again")
    if peak > LOUDEST:
        raise InputError(f"audio holds a sample of {peak:.3g}, where full scale is 1; write the file again")


def is_silent(samples: Any) -> bool:
    """True where there is nothing to be heard in samples [T] of one channel; no samples at all are another fault."""
    return len(samples) > 0 and float(abs(samples).max()) < SILENCE
