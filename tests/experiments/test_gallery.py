"""Which figures a folder of results gives."""

import json

import numpy as np
import pytest

from ser_plugins.experiments import gallery
from ser_plugins.experiments.gallery import draw_figures


@pytest.fixture
def calls(results, monkeypatch):
    """Arguments of all figures, which are not drawn."""
    found = {}
    for name in ("confusion_figure", "tsne_figure", "sweep_figure"):
        monkeypatch.setattr(gallery, name, lambda *given: found.setdefault(given[-1].name, given))
    draw_figures(results)
    return found


def test_each_experiment_and_sweep_has_its_figure(results, calls):
    names = ["S1-cremad-7", "S1-own-1", *(f"S{i}-ravdess-1" for i in (1, 3, 4, 5))]
    confusions = {f"confusion-{name}.png" for name in names}
    assert set(calls) == confusions | {"tsne-ravdess-1.png", "sweep-clusters-ravdess.png", "sweep-alpha-ravdess.png"}


def test_confusions_of_all_folds_are_added(results, calls):
    counts, labels, title, _ = calls["confusion-S1-ravdess-1.png"]
    files = list((results / "S1" / "ravdess" / "1").glob("fold*/metrics.json"))
    assert len(files) == 10 and title == "S1, ravdess, 10 folds"
    assert np.array_equal(counts, sum(np.array(json.loads(file.read_text())["confusion"]) for file in files))
    assert labels[0] == "neutral"


def test_embeddings_are_of_the_fold_that_all_three_have(results, calls):
    panels, labels, title, _ = calls["tsne-ravdess-1.png"]
    assert list(panels) == ["S3", "S4", "S5"] and title == "ravdess, fold 2" and len(labels) == 8
    file = np.load(results / "S4" / "ravdess" / "1" / "fold2" / "embeddings.npz")
    embeddings, emotions = panels["S4"]
    assert np.array_equal(embeddings, file["embedding"]) and len(emotions) == len(file["id"])


def test_a_sweep_compares_the_same_folds(calls):
    table, key, title, _ = calls["sweep-clusters-ravdess.png"]
    assert key == "clusters" and title == "ravdess, folds 1, 2"
    assert sorted(zip(table["strategy"], table["value"], table["fold"], strict=True)) == [
        (strategy, value, fold) for strategy in ("S3", "S5") for value in (4, 10) for fold in (1, 2)
    ]
