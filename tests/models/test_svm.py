"""The SVM in tensors against scikit-learn's, on held-out data."""

import io
import runpy
import sys

import numpy as np
import pytest
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import normalize
from sklearn.svm import SVC

from ser_plugins import SoftmaxClassifier
from ser_plugins.errors import InputError
from ser_plugins.models import svm as svm_module
from ser_plugins.models.svm import SVMClassifier


def part(n_classes, seed, size=20):
    """Make overlapping clusters of unequal sizes: class c has size + 3c embeddings."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(n_classes, 12))
    labels = rng.permutation(np.repeat(np.arange(n_classes), size + 3 * np.arange(n_classes)))
    embeddings = (centres[labels] + 1.5 * rng.normal(size=(len(labels), 12))).astype(np.float32)
    return torch.from_numpy(embeddings)[:, None], torch.from_numpy(labels)


def array(embeddings):
    return normalize(embeddings.squeeze(1).double().numpy())


def fitted(n_classes, **options):
    svm = SVMClassifier(n_classes)
    return svm.fit(*part(n_classes, seed=1), *part(n_classes, seed=2), **options)


def machine(n_classes, C, gamma):
    embeddings, labels = part(n_classes, seed=1)
    svc = SVC(C=C, gamma=gamma, decision_function_shape="ovr", break_ties=True)
    return svc.fit(array(embeddings), labels.numpy())


@pytest.mark.parametrize("n_classes", [2, 3, 8])
@pytest.mark.parametrize(("C", "gamma"), [(1, "scale"), (100, 0.5)])
def test_equals_scikit_learn(n_classes, C, gamma):
    pytest.importorskip("sklearn", minversion="1.8", reason="scikit-learn 1.8 is the first with temperature scaling")
    svm = fitted(n_classes, C=[C], gamma=[gamma])
    svc = machine(n_classes, C, gamma)
    embeddings, _ = part(n_classes, seed=3)
    valid_embeddings, valid_labels = part(n_classes, seed=2)
    calibrated = CalibratedClassifierCV(FrozenEstimator(svc), method="temperature")
    calibrated.fit(array(valid_embeddings), valid_labels.numpy())

    decisions = svm.decision_function(embeddings).squeeze(1).numpy()
    expected = svc.decision_function(array(embeddings))
    np.testing.assert_allclose(decisions[:, 1] if n_classes == 2 else decisions, expected, atol=1e-9)
    log_probabilities = svm(embeddings).squeeze(1)
    assert log_probabilities.dtype == torch.float32
    np.testing.assert_array_equal(log_probabilities.argmax(dim=-1).numpy(), svc.predict(array(embeddings)))
    np.testing.assert_allclose(log_probabilities.exp(), calibrated.predict_proba(array(embeddings)), atol=1e-5)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_a_linear_kernel_equals_scikit_learn(n_classes):
    svm = SVMClassifier(n_classes, "linear").fit(*part(n_classes, seed=1), *part(n_classes, seed=2))
    (embeddings, labels), (unseen, _), (valid, valid_labels) = (part(n_classes, seed=seed) for seed in (1, 3, 2))
    machines = [SVC(C=C, kernel="linear", break_ties=True).fit(array(embeddings), labels) for C in (1, 10, 100)]
    scores = [one.score(array(valid), valid_labels) for one in machines]
    best = machines[int(np.argmax(scores))]
    assert svm.chosen == {"C": best.C, "accuracy": max(scores)}
    decisions = svm.decision_function(unseen).squeeze(1).numpy()
    decisions = decisions[:, 1] if n_classes == 2 else decisions
    np.testing.assert_allclose(decisions, best.decision_function(array(unseen)), atol=1e-3)  # libsvm's tolerance
    alone = SVMClassifier(n_classes, "linear").fit(embeddings, labels)
    assert alone.chosen == {"C": 1}
    np.testing.assert_array_equal(alone(unseen).argmax(-1).flatten(), machines[0].predict(array(unseen)))


def test_a_head_decides_until_the_machine_is_fitted():
    head = SoftmaxClassifier(12, 3)
    svm = SVMClassifier(3, head=head)
    embeddings, labels = part(3, seed=1)
    assert torch.equal(svm(embeddings, labels), head(embeddings))
    assert {id(weight) for weight in svm.parameters()} == {id(weight) for weight in head.parameters()}
    svm.fit(embeddings, labels, *part(3, seed=2))
    plain = SVMClassifier(3).fit(embeddings, labels, *part(3, seed=2))
    assert torch.equal(svm(embeddings), plain(embeddings))
    again = SVMClassifier(3, head=SoftmaxClassifier(12, 3))
    again.load_state_dict(svm.state_dict())
    assert torch.equal(again(embeddings), plain(embeddings))


def test_pair_decisions_equal_one_vs_one():
    svm = fitted(4, C=[10], gamma=[1.0])
    svc = machine(4, 10, 1.0).set_params(decision_function_shape="ovo", break_ties=False)
    embeddings, _ = part(4, seed=3)
    pairs = svm.pair_decisions(embeddings).squeeze(1)
    np.testing.assert_allclose(pairs, svc.decision_function(array(embeddings)), atol=1e-9)


def test_settings_are_the_best_of_the_validation_part():
    grid = {(C, gamma): 0.0 for C in (1, 10, 100) for gamma in ("scale", 0.5, 2.0)}
    valid_embeddings, valid_labels = part(5, seed=2)
    for C, gamma in grid:
        grid[C, gamma] = machine(5, C, gamma).score(array(valid_embeddings), valid_labels.numpy())
    chosen = fitted(5, C=(100, 1, 10)).chosen
    best = max(grid, key=grid.get)  # the first of equals: the smallest C
    assert (chosen["C"], chosen["gamma"]) == best
    assert chosen["accuracy"] == grid[best]


def test_the_default_grid_is_searched_as_by_scikit_learn():
    """C of 1, 10, 100 and gamma of "scale", 0.5, 2; each is the best of some data."""
    grid, chosen = [(C, gamma) for C in (1, 10, 100) for gamma in ("scale", 0.5, 2.0)], set()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        draw = [(rng.normal(size=(60, 4)), np.arange(60) % 3) for _ in range(2)]
        (inputs, labels), (valid, valid_labels) = ((x + 0.4 * y[:, None], y) for x, y in draw)
        scores = []
        for C, gamma in grid:
            svc = SVC(C=C, gamma=gamma, break_ties=True).fit(normalize(inputs), labels)
            scores.append((svc.predict(normalize(valid)) == valid_labels).mean())
        svm = SVMClassifier(3).fit(inputs, labels, valid, valid_labels)
        best = grid[int(np.argmax(scores))]  # the first of equals
        assert (svm.chosen["C"], svm.chosen["gamma"], svm.chosen["accuracy"]) == (*best, max(scores))
        assert (svm(torch.from_numpy(valid)).argmax(-1).numpy() == valid_labels).mean() == max(scores)
        chosen |= {*best}
    assert chosen == {1, 10, 100, "scale", 0.5, 2.0}


@pytest.mark.parametrize(
    "embeddings", [torch.ones(6, 4), torch.zeros(6, 4), torch.full((6, 4), 0.3) * torch.arange(1, 7)[:, None]]
)
@pytest.mark.parametrize("validation", [True, False])
def test_embeddings_that_are_all_the_same_are_refused(embeddings, validation):
    """Of whatever length: only directions count."""
    given = (embeddings, torch.arange(6) % 3)
    with pytest.raises(InputError, match=r"all the same: .* collapsed; train it again") as caught:
        SVMClassifier(3).fit(*given, *(given if validation else ()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_without_validation_it_calibrates_by_cross_validation(n_classes):
    pytest.importorskip("sklearn", minversion="1.8", reason="scikit-learn 1.8 is the first with temperature scaling")
    embeddings, labels = part(n_classes, seed=1)
    svm = SVMClassifier(n_classes).fit(embeddings, labels)
    svc = SVC(gamma="scale", break_ties=True)
    calibrated = CalibratedClassifierCV(svc, method="temperature", cv=5, ensemble=False)
    calibrated.fit(array(embeddings), labels.numpy())
    unseen, _ = part(n_classes, seed=3)
    np.testing.assert_allclose(svm(unseen).squeeze(1).exp(), calibrated.predict_proba(array(unseen)), atol=1e-5)


def test_class_missing_from_validation():
    embeddings, labels = part(4, seed=2)
    svm = SVMClassifier(4).fit(*part(4, seed=1), embeddings[labels != 2], labels[labels != 2])
    assert svm(embeddings).isfinite().all()


def test_shapes_and_types():
    svm = fitted(3)
    embeddings, _ = part(3, seed=3)
    expected = svm(embeddings)
    assert expected.shape == (len(embeddings), 1, 3)
    assert torch.equal(svm(embeddings.squeeze(1)), expected.squeeze(1))
    assert torch.allclose(expected.exp().sum(dim=-1), torch.ones(len(embeddings), 1))
    assert torch.equal(svm(embeddings.double()), expected)
    assert torch.equal(svm(5 * embeddings).argmax(-1), expected.argmax(-1))
    assert svm(embeddings[:0]).shape == (0, 1, 3)
    for dtype in (torch.bfloat16, torch.float16):
        low = svm(embeddings.to(dtype))
        assert low.dtype == torch.float32
        assert torch.equal(low, svm(embeddings.to(dtype).float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(svm(embeddings), expected)


def test_arrays_and_speechbrain_labels_fit_alike():
    embeddings, labels = part(3, seed=1)
    expected = SVMClassifier(3).fit(embeddings, labels)(embeddings)
    assert torch.equal(SVMClassifier(3).fit(embeddings.numpy(), labels.numpy())(embeddings), expected)
    assert torch.equal(SVMClassifier(3).fit(embeddings.squeeze(1), labels[:, None])(embeddings), expected)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_state_dict_loads_into_a_new_module(n_classes):
    svm = fitted(n_classes)
    stream = io.BytesIO()
    torch.save({"head.0." + name: value for name, value in svm.state_dict().items()}, stream)
    stream.seek(0)
    model = torch.nn.ModuleDict({"head": torch.nn.Sequential(SVMClassifier(n_classes))})
    model.load_state_dict(torch.load(stream, weights_only=True), strict=True)
    embeddings, _ = part(n_classes, seed=3)
    assert torch.equal(model["head"](embeddings), svm(embeddings))
    # A fitted module takes another state as well, and keeps its precision.
    other = SVMClassifier(n_classes).fit(*part(n_classes, seed=4))
    other.load_state_dict({name: value.float() for name, value in svm.state_dict().items()})
    assert other.support_vectors.dtype == torch.float64
    assert torch.allclose(other(embeddings), svm(embeddings), atol=1e-4)


def test_wrong_state_dicts_are_refused():
    state = fitted(3).state_dict()
    with pytest.raises(RuntimeError, match="pair_intercepts"):
        SVMClassifier(4).load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"Missing key.*gamma"):
        SVMClassifier(3).load_state_dict({name: value for name, value in state.items() if name != "gamma"})


def test_forward_before_fit_names_the_remedy():
    with pytest.raises(RuntimeError, match="call fit"):
        SVMClassifier(3)(torch.zeros(2, 1, 4))


@pytest.mark.parametrize(
    ("embeddings", "labels", "says"),
    [
        (torch.randn(6, 4), [0, 0, 0, 1, 1, 1], "class 2 has no"),
        (torch.randn(6, 4), [0, 0, 1, 1, 2, 3], "label 3"),
        (torch.randn(6, 4), [0, 0, 1, 1, 2, -1], "label -1"),
        (torch.randn(6, 4), [0, 0, 1, 1, 2], "5 labels"),
        (torch.randn(6, 2, 4), [0, 0, 1, 1, 2, 2], "6 labels"),
        (torch.full((6, 4), torch.nan), [0, 0, 1, 1, 2, 2], "not finite"),
        (torch.randn(5, 4), [0, 0, 1, 1, 2], "single utterance"),
    ],
)
def test_unusable_input_is_refused(embeddings, labels, says):
    with pytest.raises(InputError, match=says):
        SVMClassifier(3).fit(embeddings, labels)


def test_half_a_validation_part_and_one_class_are_refused():
    with pytest.raises(InputError, match="both or neither"):
        SVMClassifier(3).fit(*part(3, seed=1), part(3, seed=2)[0])
    with pytest.raises(InputError, match="n_classes"):
        SVMClassifier(1)
    with pytest.raises(InputError, match="kernel 'poly' is unknown; give one of rbf, linear"):
        SVMClassifier(3, "poly")


def test_inference_needs_no_scikit_learn(monkeypatch):
    state = fitted(3).state_dict()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("sklearn", "scipy")]:
        monkeypatch.setitem(sys.modules, name, None)
    svm = runpy.run_path(svm_module.__file__)["SVMClassifier"](3)
    svm.load_state_dict(state)
    assert svm(part(3, seed=3)[0]).isfinite().all()
