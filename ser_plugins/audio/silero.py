"""Silero VAD: the rule that makes segments of its probabilities, and its network by onnxruntime, without PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ser_plugins.audio.reading import Samples

Segments = list[tuple[int, int]]
FRAME, CONTEXT = 512, 64  # samples
STATE = (1, 1, 128)  # of the LSTM
BEGIN, END = 0.5, 0.35  # speech begins at the first and ends below the second
LEAST_SPEECH, LEAST_SILENCE, MARGIN = 4000, 1600, 480  # samples
NEAR = 1e-4  # four hundred times the largest difference of a probability from that of silero


def speech_segments(probabilities: Sequence[float], samples: int) -> Segments:
    """Find the segments of speech by Silero's rule with its default settings.

    Speech begins with a frame of probability 0.5 or more. It ends with a frame below 0.35 if 0.1 s of silence follow.
    Segments of 0.25 s or less are dropped; the others get a margin of 30 ms, or half the silence between two.

    Parameters
    ----------
    probabilities : sequence of float
        Probability of speech in each frame of 512 samples at 16 kHz.
    samples : int
        Length of the signal.

    Returns
    -------
    list of tuple of int
        First sample of each segment, and the first sample after it.

    Example
    -------
    >>> speech_segments([0.1, 0.9, *[0.8] * 18, 0.2, 0.1, 0.1, 0.1, 0.1], 12800)
    [(32, 10720)]
    """
    found, start, silence = [], None, None
    for position, probability in zip(range(0, samples, FRAME), probabilities, strict=True):
        if probability >= BEGIN:
            start, silence = position if start is None else start, None
        elif probability < END and start is not None:
            silence = position if silence is None else silence
            if position - silence >= LEAST_SILENCE:
                found.append((start, silence))
                start = silence = None
    if start is not None:
        found.append((start, samples))
    found = [(first, last) for first, last in found if last - first > LEAST_SPEECH]
    if not found:
        return []
    margins = [MARGIN, *(min(MARGIN, (after - last) // 2) for (_, last), (after, _) in pairwise(found)), MARGIN]
    return [
        (max(0, first - left), min(samples, last + right))
        for (first, last), (left, right) in zip(found, pairwise(margins), strict=True)
    ]


def is_near_threshold(probabilities: Any) -> bool:
    """Tell whether rounding may decide: a probability (of an array or a tensor) is very close to a threshold."""
    return any(bool((abs(probabilities - threshold) < NEAR).any()) for threshold in (BEGIN, END))


def onnx_probabilities(samples: Samples) -> Samples:
    """Compute the probability of speech in each frame of ``samples`` [T] at 16 kHz, by onnxruntime."""
    padded = np.pad(samples, (CONTEXT, -len(samples) % FRAME))
    frames = sliding_window_view(padded, CONTEXT + FRAME)[::FRAME]  # each begins with the end of the last
    state = np.zeros(STATE, np.float32)
    probabilities: Samples = _session().run(["speech_probs"], {"input": frames, "h": state, "c": state})[0]
    return probabilities


@cache
def _session() -> Any:
    from onnxruntime import InferenceSession  # noqa: PLC0415 — optional

    spec = find_spec("silero_vad")  # without importing it, which imports PyTorch
    assert spec is not None and spec.submodule_search_locations is not None
    return InferenceSession(Path(spec.submodule_search_locations[0]) / "data/silero_vad_16k_sequence.onnx")
