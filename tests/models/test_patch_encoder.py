"""Codes of spectrogram patches against loops over patches in NumPy."""

import numpy as np
import torch

from ser_plugins import PatchEncoder
from ser_plugins.lengths import relative_lengths

FRAMES = [23, 9, 1]
WIDTH, CODES, SEGMENT, BINS = 4, 3, 5, 6


def plain_codes(spectrogram, weight, bias):
    """Code of the patch around each frame: one frame before it, two after, zeros beyond the ends."""
    codes = []
    for centre in range(len(spectrogram)):
        total = bias.copy()
        for step in range(WIDTH):
            where = centre - 1 + step
            if 0 <= where < len(spectrogram):
                total += weight[:, :, step] @ spectrogram[where]
        codes.append(1 / (1 + np.exp(-total)))
    return np.array(codes)


@torch.no_grad()
def test_descriptors_and_codes_are_those_of_loops():
    torch.manual_seed(0)
    encoder = PatchEncoder(BINS, WIDTH, CODES, SEGMENT).double()
    weight, bias = (value.numpy() for value in (encoder.filters.weight, encoder.filters.bias))
    alone = [torch.randn(count, BINS, dtype=torch.float64) for count in FRAMES]
    feats = torch.nn.utils.rnn.pad_sequence(alone, batch_first=True)
    feats = torch.where(feats == 0, 7.0, feats)  # what the lengths exclude may have any value
    lengths = relative_lengths(torch.tensor(FRAMES), 23)
    expected = [plain_codes(one.numpy(), weight, bias) for one in alone]

    codes = encoder.encode(encoder.patches(feats, lengths))
    np.testing.assert_allclose(codes, np.concatenate(expected), rtol=1e-6)
    descriptors, found = encoder(feats, lengths)
    counts = [5, 2, 1]
    assert descriptors.shape == (3, 5, CODES)
    torch.testing.assert_close(found, torch.tensor(counts) / 5)
    for own, wanted, count in zip(descriptors, expected, counts, strict=True):
        means = [wanted[start : start + SEGMENT].mean(0) for start in range(0, len(wanted), SEGMENT)]
        np.testing.assert_allclose(own[:count], means, rtol=1e-6)
        assert not own[count:].any()


def test_patches_are_those_that_the_filters_see():
    encoder = PatchEncoder(2, width=3, codes=1)
    feats = torch.tensor([[[1.0, 10.0], [2.0, 20.0]]])
    # Bin by bin, each over the frames of the patch.
    assert encoder.patches(feats).tolist() == [[0, 1, 2, 0, 10, 20], [1, 2, 0, 10, 20, 0]]
