"""Silero VAD without PyTorch against the package's own functions."""

import numpy as np
import pytest
import torch
from silero_vad import get_speech_timestamps_from_probs, load_silero_vad

from ser_plugins.audio.silero import (
    FRAME,
    NEAR,
    is_near_threshold,
    onnx_probabilities,
    speech_segments,
)
from ser_plugins.corpora.synthetic import speak


@pytest.mark.parametrize("seed", range(300))
def test_the_segments_are_those_of_silero(seed):
    """Of probabilities that wander between silence and speech, faster or slower."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 120))
    levels = np.repeat(rng.choice([0.1, 0.3, 0.45, 0.9], count), rng.integers(1, 12, count))[:count]
    probabilities = np.clip(levels + rng.normal(0, 0.1, count), 0, 1).tolist()
    samples = count * FRAME - int(rng.integers(0, FRAME))
    expected = get_speech_timestamps_from_probs(probabilities, 16000, audio_length_samples=samples)
    assert speech_segments(probabilities, samples) == [(one["start"], one["end"]) for one in expected]


@pytest.mark.parametrize("samples", [1600, 16000, 40001])
def test_the_probabilities_are_those_of_the_stream(samples):
    signal = np.resize(speak(0, 1, "happy", 1), samples).astype(np.float32)
    network, expected = load_silero_vad(), []
    for start in range(0, samples, FRAME):
        frame = signal[start : start + FRAME]
        expected.append(float(network(torch.from_numpy(np.pad(frame, (0, FRAME - len(frame)))), 16000)))
    np.testing.assert_allclose(onnx_probabilities(signal), expected, atol=NEAR / 10)


@pytest.mark.parametrize(("value", "near"), [(0.5, True), (0.35005, True), (0.4998, False), (0.2, False)])
def test_a_probability_near_a_threshold_is_noticed(value, near):
    assert is_near_threshold(np.array([0.9, value])) is near
    assert is_near_threshold(torch.tensor([0.9, value], dtype=torch.float64)) is near
