"""Evaluation of a fold: what is kept where a classifier cannot be fitted, and what an SVM records."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.preprocessing import normalize
from sklearn.svm import SVC

from ser_plugins import SoftmaxClassifier, SVMClassifier
from ser_plugins.corpora.corpus import Corpus
from ser_plugins.errors import InputError
from ser_plugins.training.cross_validation import evaluate_fold, fit_classifier

LABELS = ("happy", "sad")


@pytest.fixture
def corpus():
    rows = [(f"{s}-{i}", "a.wav", LABELS[i % 2], f"s{s}", "") for s in range(3) for i in range(12)]
    return Corpus("own", LABELS, pd.DataFrame(rows, columns=["id", "path", "emotion", "speaker", "fault"]))


@pytest.fixture
def parts(corpus):
    table = corpus.table
    return {name: table[table["speaker"] == f"s{i}"].reset_index() for i, name in enumerate(("train", "valid", "test"))}


def evaluate(corpus, parts, embeddings, folder):
    tree = {"strategy": "S5", "fold": 1, "seed": 1, "split": "speaker", "speaker_normalization": "none"}
    return evaluate_fold(tree, corpus, parts, SVMClassifier(2), embeddings, {"valid_accuracy": 0.25}, folder)


def test_collapsed_embeddings_are_one_line_and_leave_the_embeddings(corpus, parts, tmp_path):
    collapsed = {name: torch.ones(12, 1, 4) for name in parts}
    with pytest.raises(InputError, match="embeddings") as caught:
        evaluate(corpus, parts, collapsed, tmp_path)
    assert "\n" not in str(caught.value)
    assert np.load(tmp_path / "embeddings.npz")["embedding"].shape == (12, 4)
    assert not (tmp_path / "predictions.csv").exists()


def test_the_accuracy_of_an_svm_stands_beside_that_of_the_centroids(corpus, parts, tmp_path):
    torch.manual_seed(0)
    label = torch.arange(12) % 2
    separate = {name: (torch.eye(2)[label] + 0.01 * torch.randn(12, 2))[:, None] for name in parts}
    metrics = evaluate(corpus, parts, separate, tmp_path)
    assert metrics["valid_accuracy"] == 0.25 and metrics["classifier_valid_accuracy"] == 1.0
    assert metrics["accuracy"] == 1.0 and len(pd.read_csv(tmp_path / "predictions.csv")) == 12


def test_a_softmax_is_calibrated_on_the_validation_part(corpus, parts, tmp_path):
    torch.manual_seed(0)
    label = torch.arange(12) % 2
    # A classifier that is far too sure; a third of the utterances sound like the other emotion.
    heard = {name: torch.eye(2)[torch.where(torch.arange(12) % 3 == 0, 1 - label, label)][:, None] for name in parts}
    classifier = SoftmaxClassifier(2, 2)
    with torch.no_grad():
        classifier.linear.weight.copy_(20 * torch.eye(2))
        classifier.linear.bias.zero_()
    tree = {"strategy": "S1", "fold": 1, "seed": 1, "split": "speaker", "speaker_normalization": "none"}
    metrics = evaluate_fold(tree, corpus, parts, classifier, heard, {}, tmp_path)
    # Two of three are right, which is the probability of logits that differ by ln 2.
    assert metrics["ece_uncalibrated"] == pytest.approx(1 / 3, abs=1e-3) and metrics["ece"] == pytest.approx(
        0, abs=1e-3
    )
    assert metrics["temperature"] == pytest.approx(20 / np.log(2), rel=1e-3)
    table = pd.read_csv(tmp_path / "predictions.csv")
    assert np.exp(table[list(LABELS)].to_numpy()).max() == pytest.approx(2 / 3, abs=1e-3)
    assert (table["emotion"] == table["predicted"]).mean() == pytest.approx(2 / 3)


def test_an_svm_is_fitted_on_the_augmented_embeddings_where_there_are_some(corpus, parts):
    torch.manual_seed(0)
    label = torch.arange(12) % 2
    whole = {name: torch.randn(12, 1, 3) for name in parts}
    rows = torch.randint(12, (30,))
    augmented = torch.randn(30, 1, 3)
    classifier = SVMClassifier(2)
    fit_classifier(classifier, {**whole, "augmented": augmented, "rows": rows}, parts, LABELS)
    machine = SVC(C=classifier.chosen["C"], gamma=classifier.chosen["gamma"]).fit(
        normalize(augmented[:, 0]), label[rows]
    )
    expected = machine.predict(normalize(whole["test"][:, 0]))
    assert classifier(whole["test"]).argmax(-1).flatten().tolist() == expected.tolist()
