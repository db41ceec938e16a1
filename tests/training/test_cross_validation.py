"""Evaluation of a fold: what is kept where a classifier cannot be fitted, and what an SVM records."""

import numpy as np
import pandas as pd
import pytest
import torch

from ser_plugins import SVMClassifier
from ser_plugins.corpora.corpus import Corpus
from ser_plugins.errors import InputError
from ser_plugins.training.cross_validation import evaluate_fold

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
    tree = {"strategy": "S5", "fold": 1, "seed": 1, "speaker_normalization": "none"}
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
