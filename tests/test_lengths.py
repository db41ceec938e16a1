"""The rule of lengths against the arithmetic of samples."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from ser_plugins.audio.spectrogram import Spectrogram
from ser_plugins.lengths import count_frames, frame_mask, relative_lengths


@given(st.lists(st.integers(400, 40000), min_size=1, max_size=5))
def test_frames_in_a_batch_are_those_alone(samples: list[int]) -> None:
    longest = max(samples)
    wavs = torch.zeros(len(samples), longest)
    for i, n in enumerate(samples):
        wavs[i, :n] = 0.1
    lengths = torch.tensor(samples) / longest
    frames = count_frames(Spectrogram()(wavs), lengths)
    assert frames.tolist() == [n // 160 + 1 for n in samples]


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_lengths_of_features_come_back(frames: int, total: int) -> None:
    frames, total = min(frames, total), max(frames, total)
    feats = torch.ones(1, total, 1)
    lengths = relative_lengths(torch.tensor([frames]), total)
    assert count_frames(feats, lengths).item() == frames
    assert count_frames(feats, torch.tensor([frames]) / total).item() == frames


def test_mask() -> None:
    assert frame_mask(torch.tensor([2, 0]), 3).tolist() == [[True, True, False], [False] * 3]
