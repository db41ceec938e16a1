"""Attentive pooling by a plain loop."""

import math

import pytest
import torch

from ser_plugins import AttentivePooling
from ser_plugins.lengths import relative_lengths


@torch.no_grad()
def test_pooling_is_the_loops():
    torch.manual_seed(0)
    pooling, descriptors, frames = AttentivePooling(5), torch.randn(3, 7, 5), [7, 3, 1]
    torch.nn.init.normal_(pooling.attention)
    found = pooling(descriptors, relative_lengths(torch.tensor(frames), 7))
    for row, count, one in zip(descriptors, frames, found, strict=True):
        weights = [math.exp(sum(a * b for a, b in zip(pooling.attention, row[t], strict=True))) for t in range(count)]
        expected = sum(weight * row[t] for t, weight in enumerate(weights)) / sum(weights)
        torch.testing.assert_close(one, expected)


@torch.no_grad()
def test_it_starts_as_the_mean():
    descriptors = torch.randn(2, 9, 4)
    torch.testing.assert_close(AttentivePooling(4)(descriptors), descriptors.mean(1))
    assert AttentivePooling(4)(descriptors.bfloat16()).dtype == torch.float32


def test_without_a_size_the_remedy_is_told():
    with pytest.raises(ValueError, match="no input_size"):
        AttentivePooling()(torch.zeros(1, 2, 3))
