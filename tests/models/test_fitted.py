"""Classifiers in tensors against scikit-learn's."""

import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize
from sklearn.svm import SVC

from ser_plugins import (
    ForestClassifier,
    NeighbourClassifier,
    PerceptronClassifier,
    SelectedClassifier,
    SVMClassifier,
)
from ser_plugins.errors import InputError
from ser_plugins.inference.onnx import convert

MAKERS = {
    "forest": lambda n: ForestClassifier(n, trees=7, depth=4, leaves=[2]),
    "neighbours": lambda n: NeighbourClassifier(n, neighbours=[5]),
    "perceptron": lambda n: PerceptronClassifier(n, hidden_size=6, alpha=[0.1]),
    "selected": lambda n: SelectedClassifier(NeighbourClassifier(n, neighbours=[5]), features=3),
}
THEIRS = {
    "forest": lambda: RandomForestClassifier(7, max_depth=4, min_samples_leaf=2, random_state=0),
    "neighbours": lambda: KNeighborsClassifier(5),
    "perceptron": lambda: MLPClassifier((6,), alpha=0.1, max_iter=1000, random_state=0),
    "selected": lambda: make_pipeline(SelectKBest(f_classif, k=3), StandardScaler(), KNeighborsClassifier(5)),
}
each = pytest.mark.parametrize("kind", list(MAKERS))


def data(n_classes, seed=0):
    """Values that float32 has, as embeddings are."""
    rng = np.random.default_rng(seed)
    labels = np.arange(30 * n_classes) % n_classes
    inputs = rng.normal(3.0, 2.0, (len(labels), 8)) + 2 * np.eye(n_classes, 8)[labels]
    return inputs.astype(np.float32).astype(np.float64), labels


def fitted(kind, n_classes):
    inputs, labels = data(n_classes)
    return MAKERS[kind](n_classes).fit(inputs[:, None], labels, *data(n_classes, seed=1))


@each
@pytest.mark.parametrize("n_classes", [2, 4])
def test_its_probabilities_are_those_of_scikit_learn(kind, n_classes):
    classifier, model = fitted(kind, n_classes), THEIRS[kind]().fit(*data(n_classes))
    inputs, _ = data(n_classes, seed=2)
    found = classifier(torch.tensor(inputs)[:, None])
    assert found.shape == (len(inputs), 1, n_classes) and found.dtype == torch.float32 and found.isfinite().all()
    np.testing.assert_allclose(found.exp().squeeze(1), model.predict_proba(inputs), atol=1e-3)
    np.testing.assert_array_equal(found.argmax(-1).flatten(), model.predict(inputs))
    assert classifier.chosen["accuracy"] == pytest.approx(model.score(*data(n_classes, seed=1)))
    np.testing.assert_array_equal(classifier(torch.tensor(inputs).float()).argmax(-1), model.predict(inputs))


@each
def test_the_state_dict_is_all_that_was_learned(kind, tmp_path):
    classifier, again = fitted(kind, 3), MAKERS[kind](3)
    torch.save(classifier.state_dict(), tmp_path / "state.ckpt")
    again.load_state_dict(torch.load(tmp_path / "state.ckpt", weights_only=True))
    inputs = torch.tensor(data(3, seed=2)[0])
    assert torch.equal(again(inputs), classifier(inputs))


@pytest.mark.slow
@each
def test_onnx_gives_the_same(kind):
    classifier, inputs = fitted(kind, 3), torch.tensor(data(3, seed=2)[0]).float()[:, None]
    graph = convert(classifier, (inputs[:2],), {"x": ("batch",)}, ["y"])
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    [found] = session.run(None, {"x": inputs.numpy()})
    np.testing.assert_allclose(found, classifier(inputs), atol=1e-4)


@pytest.mark.parametrize(
    ("make", "key", "values", "theirs"),
    [
        (NeighbourClassifier, "neighbours", [1, 5, 21], KNeighborsClassifier),
        (
            lambda n, leaves: ForestClassifier(n, 5, 6, leaves),
            "leaves",
            [1, 10],
            lambda least: RandomForestClassifier(5, max_depth=6, min_samples_leaf=least, random_state=0),
        ),
    ],
)
def test_validation_chooses_the_setting(make, key, values, theirs):
    scores = [theirs(value).fit(*data(3)).score(*data(3, seed=1)) for value in values]
    chosen = make(3, **{key: values}).fit(*data(3), *data(3, seed=1)).chosen
    assert values[int(np.argmax(scores))] in chosen.values() and chosen["accuracy"] == pytest.approx(max(scores))


def test_selection_takes_the_features_that_depend_on_the_class():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    inputs = rng.normal(size=(60, 9))
    inputs[:, 4] += labels
    inputs[:, 7] -= 2 * labels
    inputs[:, 2] = 5.0  # says nothing, and has no variance
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier = SelectedClassifier(NeighbourClassifier(3), features=2).fit(inputs, labels, inputs, labels)
    assert classifier.selected.tolist() == [4, 7]
    whole = SelectedClassifier(NeighbourClassifier(3), features=20).fit(inputs, labels, inputs, labels)
    assert whole.selected.tolist() == list(range(9)) and whole(torch.tensor(inputs)).isfinite().all()


def test_a_linear_svm_takes_standardised_features():
    inputs, labels = data(4)
    unseen = data(4, seed=2)[0]
    classifier = SelectedClassifier(SVMClassifier(4, "linear")).fit(inputs, labels, *data(4, seed=1))
    scaler = StandardScaler().fit(inputs)
    svc = SVC(C=classifier.chosen["C"], kernel="linear", break_ties=True)
    svc.fit(normalize(scaler.transform(inputs)), labels)
    found = classifier(torch.tensor(unseen)).argmax(-1)
    np.testing.assert_array_equal(found, svc.predict(normalize(scaler.transform(unseen))))


def test_wrong_use_is_one_line():
    with pytest.raises(InputError, match="class 2 has no utterance"):
        NeighbourClassifier(3).fit(np.ones((2, 4)), [0, 1], np.ones((2, 4)), [0, 1])
    with pytest.raises(InputError, match="n_classes"):
        ForestClassifier(1)
    with pytest.raises(InputError, match="features is 0"):
        SelectedClassifier(NeighbourClassifier(2), features=0)
    for make in MAKERS.values():
        with pytest.raises(RuntimeError, match="is not fitted"):
            make(3)(torch.ones(1, 1, 4))
