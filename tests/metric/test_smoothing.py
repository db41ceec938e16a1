"""Smoothed cross-entropy against its definition in plain loops, and PyTorch's own label smoothing."""

import math

import pytest
import torch
from torch.nn import functional

from ser_plugins import SmoothedCrossEntropy
from ser_plugins.errors import InputError


def batch(n_classes=4, size=9):
    torch.manual_seed(0)
    logits = 3 * torch.randn(size, n_classes, dtype=torch.float64)
    return logits.requires_grad_(), torch.arange(size) % n_classes


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_loss_is_the_loops(smoothing):
    logits, labels = batch()
    counts = [10, 1, 5, 0]
    loss = SmoothedCrossEntropy(counts, smoothing)(logits.log_softmax(-1), labels)
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        normaliser = sum(math.exp(x) for x in row)
        for c, x in enumerate(row):
            target = (1 - smoothing) * (c == label) + smoothing * counts[c] / 16
            total -= target * math.log(math.exp(x) / normaliser)
    assert loss.item() == pytest.approx(total / len(labels))


def test_without_a_prior_it_is_pytorchs():
    logits, labels = batch()
    loss = SmoothedCrossEntropy(smoothing=0.2)(logits.log_softmax(-1), labels)
    expected = functional.cross_entropy(logits, labels, label_smoothing=0.2)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in (loss, expected)))


@pytest.mark.parametrize(
    ("prior", "smoothing", "says"),
    [([1.0, -0.5], 0.1, "prior is"), ([0.0, 0.0], 0.1, "prior is"), (None, 1.5, "smoothing is 1.5")],
)
def test_what_is_no_distribution_is_refused(prior, smoothing, says):
    with pytest.raises(InputError, match=says):
        SmoothedCrossEntropy(prior, smoothing)


def test_a_prior_of_other_classes_is_refused():
    logits, labels = batch(4)
    with pytest.raises(InputError, match="a prior of 3 classes for 4"):
        SmoothedCrossEntropy([0.2, 0.3, 0.5])(logits.log_softmax(-1), labels)
