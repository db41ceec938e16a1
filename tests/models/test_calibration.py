"""The temperature against a search over a grid; a softmax keeps it in its weights."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from ser_plugins import SoftmaxClassifier
from ser_plugins.models.calibration import fit_temperature


def example(scale, seed=0):
    """Logits that are too sure by a factor, and labels drawn from the true probabilities."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3000, 4, generator=generator)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=generator).flatten()
    return scale * logits, labels


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_a_scale(scale):
    logits, labels = example(scale)
    found = fit_temperature(logits.log_softmax(-1)[:, None], labels)
    assert found == pytest.approx(scale, rel=0.08)
    grid = np.linspace(0.2, 5, 481)
    losses = [functional.cross_entropy(logits.double() / t, labels).item() for t in grid]
    assert found == pytest.approx(grid[int(np.argmin(losses))], abs=0.011)


def test_a_part_without_errors_has_a_limit():
    logits = torch.eye(4).repeat(5, 1)
    assert fit_temperature(logits.log_softmax(-1), torch.arange(20) % 4) == pytest.approx(0.1)


def test_a_calibrated_softmax_has_the_scaled_logits():
    rng = np.random.default_rng(0)
    labels = torch.arange(90) % 3
    other = torch.tensor(rng.normal(size=(90, 1, 5)) + np.eye(3, 5)[labels][:, None], dtype=torch.float32)
    classifier = SoftmaxClassifier(5, 3).eval()
    with torch.no_grad():
        classifier.linear.weight.copy_(3 * torch.eye(3, 5))
        before = classifier(other)
    temperature = classifier.calibrate(other, labels)
    with torch.no_grad():
        after = classifier(other)
    assert temperature == pytest.approx(fit_temperature(before, labels)) and temperature > 1.5
    torch.testing.assert_close(after, (before / temperature).log_softmax(-1))
    assert torch.equal(before.argmax(-1), after.argmax(-1))
    # The least cross-entropy is reached: a second calibration finds nothing to change.
    assert classifier.calibrate(other, labels) == pytest.approx(1, abs=1e-3)
