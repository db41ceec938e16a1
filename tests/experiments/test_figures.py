"""Figures of the paper: colours, clusters and means."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ser_plugins.evaluation.figures import COLOURS
from ser_plugins.experiments.figures import project, sweep_figure, tsne_figure

LABELS = ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]


@pytest.fixture
def drawn(monkeypatch):
    """Figures as they are when they are saved."""
    figures = []
    original = Figure.savefig

    def savefig(figure, part, **options):
        figures[:] = [figure]
        original(figure, part, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures


def test_a_name_with_dollar_signs_is_no_formula(tmp_path):
    names = [r"$\frac$", r"$\no$"]  # neither is one that Matplotlib could set
    tsne_figure({names[0]: (np.eye(8, dtype=np.float32), names * 4)}, names, names[1], tmp_path / "tsne.png")


def test_emotions_keep_colour_and_marker_from_corpus_to_corpus(tmp_path, drawn):
    rng = np.random.default_rng(0)
    looks = []
    for labels in (LABELS, ["angry", "disgust", "fearful", "happy", "neutral", "sad"]):
        emotions = labels * 3
        panel = (rng.normal(size=(len(emotions), 8)).astype(np.float32), emotions)
        tsne_figure({"S3": panel, "S5": panel}, labels, "ravdess", tmp_path / "tsne.png")
        one, other = drawn[0].axes
        assert [axes.get_title() for axes in (one, other)] == ["S3", "S5"]
        assert all(len(dots.get_offsets()) == 3 for axes in (one, other) for dots in axes.collections)
        looks.append(
            {
                dots.get_label(): (*dots.get_facecolor()[0], dots.get_paths()[0].vertices.sum())
                for dots in one.collections
            }
        )
    assert len(set(looks[0].values())) == len(LABELS)
    assert all(looks[0][label] == look for label, look in looks[1].items())


def test_projection_keeps_clusters_together():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 20)
    directions = np.eye(16, dtype=np.float32)[labels] + rng.normal(0, 0.05, (60, 16))
    points = project((directions * rng.uniform(0.1, 10, (60, 1))).astype(np.float32))  # length tells nothing
    centres = np.stack([points[labels == i].mean(0) for i in range(3)])
    nearest = np.linalg.norm(points[:, None] - centres, axis=-1).argmin(1)
    assert points.shape == (60, 2) and (nearest == labels).all()


def test_a_sweep_shows_the_means_and_every_fold(tmp_path, drawn):
    rows = [(s, k, 0.5 + 0.01 * k + 0.1 * fold, 0.7) for s in ("S3", "S5") for k in (10, 4) for fold in (0, 1)]
    table = pd.DataFrame(rows, columns=["strategy", "value", "accuracy", "valid_accuracy"])
    sweep_figure(table, "clusters", "ravdess", tmp_path / "sweep.png")
    (axes,) = drawn[0].axes
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines) == ["S3, test", "S3, validation", "S5, test", "S5, validation"]
    np.testing.assert_allclose(lines["S5, test"].get_xydata(), [[4, 59], [10, 65]])
    np.testing.assert_allclose(lines["S3, validation"].get_ydata(), [70, 70])
    assert to_rgb(lines["S5, test"].get_color()) == to_rgb(COLOURS[1])
    assert [len(dots.get_offsets()) for dots in axes.collections] == [4, 4]
    assert (axes.get_xlabel(), axes.get_xticks().tolist()) == ("clusters", [4, 10])
