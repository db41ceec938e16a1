"""The mean of descriptors by a plain loop."""

import torch

from ser_plugins import MeanPooling
from ser_plugins.lengths import relative_lengths


def test_mean_is_over_what_is_not_padded():
    torch.manual_seed(0)
    descriptors, frames = torch.randn(3, 7, 5), [7, 3, 1]
    found = MeanPooling(5)(descriptors, relative_lengths(torch.tensor(frames), 7))
    for row, count, mean in zip(descriptors, frames, found, strict=True):
        torch.testing.assert_close(mean, sum(row[i] for i in range(count)) / count)
    torch.testing.assert_close(MeanPooling(5)(descriptors)[1], descriptors[1].mean(0))
    assert MeanPooling(5)(descriptors.bfloat16()).dtype == torch.float32
