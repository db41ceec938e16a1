"""All measures against scikit-learn, SciPy and plain loops."""

import time

import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn.metrics import accuracy_score, balanced_accuracy_score, brier_score_loss, f1_score, log_loss, recall_score

from ser_plugins.evaluation.calibration import risk_coverage
from ser_plugins.evaluation.evaluate import evaluate
from ser_plugins.evaluation.intervals import actor_draws
from ser_plugins.evaluation.protocol import reference
from ser_plugins.evaluation.system import System

LABELS = ["angry", "happy", "sad"]
MACRO = {"labels": LABELS, "average": "macro"}
MEASURES = {
    "accuracy": accuracy_score,
    "uar": balanced_accuracy_score,
    "macro_f1": lambda true, predicted: f1_score(true, predicted, **MACRO),
}


@pytest.fixture
def system(own, guess):
    values = guess()[LABELS]
    return System("ours", own.table.assign(predicted=values.idxmax(axis=1)), values.to_numpy())


def calibration_error(probabilities, right, bins=15):
    """The expected calibration error, bin by bin."""
    confidence, total = probabilities.max(1), 0.0
    for i in range(bins):
        inside = (confidence >= i / bins) & (confidence < (i + 1) / bins)
        if inside.any():
            total += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    return total


def test_measures_are_those_of_scikit_learn(own, system):
    found, table = evaluate(system, own), system.table
    true, predicted = table["emotion"], table["predicted"]
    for name, function in MEASURES.items():
        assert found[name]["value"] == pytest.approx(function(true, predicted))
    recalls = [found["recall"][label]["value"] for label in LABELS]
    assert recalls == pytest.approx(recall_score(true, predicted, labels=LABELS, average=None))
    assert found["log_loss"]["value"] == pytest.approx(log_loss(true, system.probabilities, labels=LABELS))
    brier = brier_score_loss(true, system.probabilities, labels=LABELS, scale_by_half=False)
    assert found["brier"]["value"] == pytest.approx(brier)
    right = (true == predicted).to_numpy()
    assert found["ece"]["value"] == pytest.approx(calibration_error(system.probabilities, right))
    assert (found["utterances"], found["speakers"], np.sum(found["confusion"])) == (117, 9, 117)


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_groups_are_those_of_the_rows(own, system):
    found, table = evaluate(system, own), system.table
    assert list(found["groups"]) == ["sex", "sentence", "actor"]
    for name, parts in {**found["groups"], "block": found["folds"]}.items():
        column = "speaker" if name == "actor" else name
        assert [one["name"] for one in parts] == [str(one) for one in table[column].unique()]
        for one in parts:
            rows = table[table[column].astype(str) == one["name"]]
            values = [one[key]["value"] if isinstance(one[key], dict) else one[key] for key in ("accuracy", "uar")]
            expected = [MEASURES[key](rows["emotion"], rows["predicted"]) for key in ("accuracy", "uar")]
            assert values == pytest.approx(expected)
            assert one["utterances"] == len(rows) and one["speakers"] == rows["speaker"].nunique()


def plain(name, true, predicted):
    """A measure, class by class."""
    if name == "accuracy":
        return (true == predicted).mean()
    values = []
    for label in set(true):
        hits = ((true == label) & (predicted == label)).sum()
        total = (true == label).sum() if name == "uar" else ((true == label).sum() + (predicted == label).sum()) / 2
        values.append(hits / total)
    return np.mean(values)


@pytest.mark.parametrize("name", MEASURES)
def test_intervals_are_those_of_actors_drawn_one_by_one(own, system, name):
    parts = [part[["emotion", "predicted"]].to_numpy(str).T for _, part in system.table.groupby("speaker")]
    rng = np.random.default_rng(1)
    draws = [np.concatenate([parts[i] for i in rng.integers(9, size=9)], axis=1) for _ in range(3000)]
    expected = np.percentile([plain(name, *draw) for draw in draws], [2.5, 97.5])
    found = evaluate(system, own)[name]
    assert [found["low"], found["high"]] == pytest.approx(expected, abs=0.012)


def test_the_interval_of_the_accuracy_is_that_of_scipy(own, system):
    actors = system.table.assign(right=system.table["emotion"] == system.table["predicted"]).groupby("speaker")["right"]

    def accuracy(right, clips, axis):
        return right.sum(axis) / clips.sum(axis)

    samples = (actors.sum().to_numpy(), actors.size().to_numpy())
    expected = bootstrap(samples, accuracy, paired=True, method="percentile", rng=1).confidence_interval
    found = evaluate(system, own)["accuracy"]
    assert [found["low"], found["high"]] == pytest.approx(list(expected), abs=0.01)


def test_the_probabilities_have_intervals_over_actors(own, system):
    parts = [np.flatnonzero(own.table["speaker"] == one) for one in own.table["speaker"].unique()]
    right = (system.table["emotion"] == system.table["predicted"]).to_numpy()
    rng = np.random.default_rng(1)
    draws = [np.concatenate([parts[i] for i in rng.integers(9, size=9)]) for _ in range(2000)]
    drawn = [calibration_error(system.probabilities[rows], right[rows]) for rows in draws]
    found = evaluate(system, own)["ece"]
    assert [found["low"], found["high"]] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.015)


def test_a_resample_has_as_many_actors_as_there_are():
    draws = actor_draws(7)
    assert draws.shape == (10_000, 7) and (draws.sum(1) == 7).all()
    assert draws.mean() == pytest.approx(1) and draws.var() == pytest.approx(6 / 7, rel=0.05)


def test_one_actor_and_a_perfect_system(own):
    one = own.table[own.table["speaker"] == "a8"]
    found = evaluate(System("one", one.assign(predicted="sad"), None), own)
    assert found["accuracy"]["low"] is None and "ece" not in found
    perfect = evaluate(System("perfect", own.table.assign(predicted=own.table["emotion"]), None), own)
    assert perfect["uar"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_risk_is_that_of_the_most_confident():
    rng = np.random.default_rng(0)
    confidence, right = rng.random(400), rng.random(400) < 0.6
    found = risk_coverage(confidence, right)
    order = np.argsort(-confidence)
    risks = [1 - right[order[:n]].mean() for n in range(1, 401)]
    assert found["aurc"] == pytest.approx(np.mean(risks))
    assert len(found["points"]) == 100
    for point in found["points"]:
        answered = confidence >= point["probability"]
        assert point["coverage"] == pytest.approx(answered.mean())
        assert point["accuracy"] == pytest.approx(right[answered].mean())


def test_equal_confidences_are_answered_together():
    """However they are ordered."""
    right = np.array([True, True, False, False])
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        found = risk_coverage(np.full(4, 0.5), right[order])
        assert found["points"] == [{"coverage": 1.0, "accuracy": 0.5, "probability": 0.5}] and found["aurc"] == 0.5


def test_cremad_is_evaluated_in_seconds():
    corpus = reference("cremad")
    values = np.random.default_rng(0).dirichlet(np.ones(6), len(corpus.table))
    predicted = np.array(corpus.labels)[values.argmax(1)]
    start = time.process_time()
    evaluate(System("chance", corpus.table.assign(predicted=predicted), values), corpus)
    assert time.process_time() - start < 12  # 1 s on an idle core
