"""The temperature against searches by hand. A softmax keeps it in its weights, a margin classifier in a buffer."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.nn import functional

from ser_plugins import MarginClassifier, SoftmaxClassifier
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


@pytest.fixture
def cosines():
    """A margin classifier, embeddings near the directions of their classes, labels, and the cosines by NumPy."""
    torch.manual_seed(0)
    classifier, labels = MarginClassifier(5, 3, scale=20.0).eval(), torch.arange(90) % 3
    embeddings = classifier.weight.detach()[labels] + 0.7 * torch.randn(90, 5)
    rows, directions = (
        one / np.linalg.norm(one, axis=1, keepdims=True)
        for one in (embeddings.double().numpy(), classifier.weight.detach().double().numpy())
    )
    return classifier, embeddings[:, None], labels, rows @ directions.T


@torch.no_grad()
def test_a_margin_classifier_is_calibrated_as_by_scipy(cosines):
    classifier, embeddings, labels, similar = cosines
    targets = labels.numpy()

    def log_probabilities(temperature):
        logits = 20 * similar / temperature
        return logits - np.log(np.exp(logits).sum(1, keepdims=True))

    def likelihood(parameter):
        return -log_probabilities(parameter[0])[np.arange(90), targets].mean()

    best = minimize(likelihood, [1.0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12}).x[0]
    before = classifier(embeddings)
    np.testing.assert_allclose(before[:, 0], log_probabilities(1.0), atol=1e-4)
    assert classifier.calibrate(embeddings, labels) == pytest.approx(best, rel=1e-4) and best > 1.5
    found = classifier(embeddings)
    np.testing.assert_allclose(found[:, 0], log_probabilities(best), atol=1e-3)
    assert torch.equal(before.argmax(-1), found.argmax(-1))
    # A second calibration finds nothing to change.
    assert classifier.calibrate(embeddings, labels) == pytest.approx(1, abs=1e-4)
    assert classifier.temperature.item() == pytest.approx(best, rel=1e-3)


@torch.no_grad()
def test_a_margin_classifier_keeps_its_temperature_and_older_weights_have_none(cosines):
    classifier, embeddings, labels, _ = cosines
    older, before = {"weight": classifier.weight.clone()}, classifier(embeddings)
    classifier.calibrate(embeddings, labels)
    again = MarginClassifier(5, 3, scale=20.0)
    again.load_state_dict(classifier.state_dict())
    assert torch.equal(again(embeddings), classifier(embeddings))
    again.load_state_dict(older)  # into a calibrated classifier, too
    assert torch.equal(again(embeddings), before) and list(older) == ["weight"]
    inside = torch.nn.ModuleDict({"classifier": MarginClassifier(5, 3, scale=20.0)})
    inside.load_state_dict({"classifier.weight": older["weight"]})
    assert torch.equal(inside["classifier"](embeddings), before)
    with pytest.raises(RuntimeError, match="Missing key"):
        inside.load_state_dict({})
