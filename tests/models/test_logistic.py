"""Logistic regression as tensors is scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ser_plugins import LogisticClassifier
from ser_plugins.errors import InputError


def data(n_classes, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(30 * n_classes) % n_classes
    return rng.normal(3.0, 5.0, (len(labels), 6)) + 4 * np.eye(n_classes, 6)[labels], labels


@pytest.mark.parametrize("n_classes", [2, 3])
def test_its_probabilities_are_those_of_scikit_learn(n_classes):
    inputs, labels = data(n_classes)
    classifier = LogisticClassifier(n_classes, c=[0.5]).fit(inputs[:, None], labels, inputs[:, None], labels)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=2000)).fit(inputs, labels)
    found = classifier(torch.tensor(inputs)[:, None]).exp().squeeze(1)
    np.testing.assert_allclose(found, model.predict_proba(inputs), atol=1e-5)
    assert classifier.chosen["accuracy"] == pytest.approx(model.score(inputs, labels))
    again = LogisticClassifier(n_classes)
    again.load_state_dict(classifier.state_dict())
    assert torch.equal(again(torch.tensor(inputs)), classifier(torch.tensor(inputs)))


def test_validation_chooses_c():
    inputs, labels = data(3)
    valid, expected = data(3, seed=1)
    accuracies = {}
    for c in (1e-4, 1e-2, 1.0):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000)).fit(inputs, labels)
        accuracies[c] = model.score(valid, expected)
    chosen = LogisticClassifier(3, c=list(accuracies)).fit(inputs, labels, valid, expected).chosen
    assert chosen == {"c": max(accuracies, key=accuracies.get), "accuracy": pytest.approx(max(accuracies.values()))}


def test_wrong_use_is_one_line():
    with pytest.raises(InputError, match="class 2 has no utterance in the training part"):
        LogisticClassifier(3).fit(np.ones((2, 4)), [0, 1], np.ones((2, 4)), [0, 1])
    with pytest.raises(InputError, match="c must be numbers above 0"):
        LogisticClassifier(3, c=[0.0])
    with pytest.raises(RuntimeError, match="is not fitted"):
        LogisticClassifier(3)(torch.ones(1, 1, 4))


@pytest.mark.parametrize(
    ("inputs", "labels", "says"),
    [
        (np.eye(4), [0, 1, 2, 3], "label 3 is no class index from 0 to 2"),
        (np.eye(4), [0, 1, 2], "3 labels for embeddings"),
        (np.eye(4) * np.nan, [0, 1, 2, 0], "an embedding is not finite"),
    ],
)
def test_what_cannot_be_fitted_is_refused(inputs, labels, says):
    with pytest.raises(InputError, match=says):
        LogisticClassifier(3).fit(inputs, labels, np.eye(4), [0, 1, 2, 0])


def test_tensors_of_a_training_are_taken():
    inputs, labels = data(3)
    tensors = torch.tensor(inputs, requires_grad=True), torch.tensor(labels)[:, None]
    expected = LogisticClassifier(3).fit(inputs, labels, inputs, labels).state_dict()
    found = LogisticClassifier(3).fit(*tensors, *tensors).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
