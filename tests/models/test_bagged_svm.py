"""Bagged SVMs in tensors against scikit-learn's."""

import io

import numpy as np
import pytest
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ser_plugins import BaggedSVMClassifier
from ser_plugins.errors import InputError


def part(n_classes, seed, size=15):
    """Make overlapping clusters of features whose scales differ."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(n_classes, 6))
    labels = rng.permutation(np.repeat(np.arange(n_classes), size))
    features = (centres[labels] + rng.normal(size=(len(labels), 6))) * [1, 10, 100, 0.1, 1, 1] + [0, 5, 0, 0, -3, 1]
    return torch.from_numpy(features.astype(np.float32))[:, None], torch.from_numpy(labels)


def array(features):
    return features.squeeze(1).double().numpy()


@pytest.mark.parametrize("n_classes", [2, 3, 6])
def test_equals_scikit_learn(n_classes):
    pytest.importorskip("sklearn", minversion="1.8", reason="scikit-learn 1.8 is the first with temperature scaling")
    known, labels = part(n_classes, 1)
    valid, valid_labels = part(n_classes, 2)
    unseen, _ = part(n_classes, 3)
    svm = BaggedSVMClassifier(n_classes, machines=7, seed=5)
    svm.fit(known, labels, valid, valid_labels, C=[10], gamma=[0.05])
    bag = BaggingClassifier(SVC(C=10, gamma=0.05), n_estimators=7, random_state=5)
    expected = make_pipeline(StandardScaler(), bag).fit(array(known), labels.numpy())
    scores = svm.decision_function(unseen).squeeze(1).numpy()
    wanted = expected.decision_function(array(unseen))
    np.testing.assert_allclose(scores[:, 1] if n_classes == 2 else scores, wanted, atol=1e-9)
    # Votes and mean scores part only where the vote is close.
    votes = expected.predict_proba(array(unseen))
    clear = votes.max(1) > 5 / 7
    assert clear.sum() > len(unseen) / 2
    np.testing.assert_array_equal(scores.argmax(1)[clear], votes.argmax(1)[clear])
    calibrated = CalibratedClassifierCV(FrozenEstimator(expected), method="temperature")
    calibrated.fit(array(valid), valid_labels.numpy())
    found = svm(unseen)
    assert found.dtype == torch.float32 and found.shape == (len(unseen), 1, n_classes)
    np.testing.assert_allclose(found.squeeze(1).exp(), calibrated.predict_proba(array(unseen)), atol=1e-5)


def test_settings_are_those_of_the_best_single_machine():
    known, labels = part(4, 1)
    valid, valid_labels = part(4, 2)
    accuracies = {}
    for C in (1, 10, 100):
        for gamma in ("scale", 0.001, 0.1):
            single = make_pipeline(StandardScaler(), SVC(C=C, gamma=gamma)).fit(array(known), labels.numpy())
            accuracies[C, gamma] = single.score(array(valid), valid_labels.numpy())
    svm = BaggedSVMClassifier(4, machines=2).fit(known, labels, valid, valid_labels)
    best = max(accuracies, key=accuracies.get)  # the first of equals: the smallest C
    assert (svm.chosen["C"], svm.chosen["gamma"]) == best
    right = svm(valid).squeeze(1).argmax(-1) == valid_labels
    assert svm.chosen["accuracy"] == int(right.sum()) / len(right)


def test_state_dict_loads_into_a_new_module():
    svm = BaggedSVMClassifier(3, machines=4).fit(*part(3, 1), *part(3, 2))
    stream = io.BytesIO()
    torch.save(svm.state_dict(), stream)
    stream.seek(0)
    other = BaggedSVMClassifier(3, machines=4)
    other.load_state_dict(torch.load(stream, weights_only=True), strict=True)
    unseen, _ = part(3, 3)
    assert torch.equal(other(unseen), svm(unseen))
    assert torch.equal(other(unseen.squeeze(1)), svm(unseen).squeeze(1))


def test_what_cannot_be_fitted_is_refused():
    features, labels = part(3, 1)
    with pytest.raises(InputError, match="class 2 has no"):
        BaggedSVMClassifier(3).fit(features[labels < 2], labels[labels < 2], features, labels)
    rare = torch.cat([torch.where(labels < 2)[0], torch.where(labels == 2)[0][:1]])
    with pytest.raises(InputError, match="a bootstrap sample lacks a class"):
        BaggedSVMClassifier(3).fit(features[rare], labels[rare], features, labels)
    two = torch.tensor([0, 0, 0, 1])
    with pytest.raises(InputError, match="a bootstrap sample lacks a class"):  # all of it of one, for some of the seeds
        for seed in range(5):
            BaggedSVMClassifier(2, seed=seed).fit(features[:4], two, features[:4], two)
    with pytest.raises(RuntimeError, match="call fit"):
        BaggedSVMClassifier(3)(features)


def test_features_that_are_all_the_same_are_refused():
    given = (torch.full((12, 4), 0.1), torch.arange(12) % 3)
    with pytest.raises(InputError, match="all the same"):
        BaggedSVMClassifier(3, machines=2).fit(*given, *given)
