"""The measurement of enrolment: the same rest for all numbers of clips, and more clips for a strange voice."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from ser_plugins import SoftmaxClassifier
from ser_plugins.errors import InputError
from ser_plugins.experiments import enrolment
from ser_plugins.experiments.enrolment import enrolment_cells, measure_enrolment, measure_folds, record_enrolment
from ser_plugins.experiments.runs import read_experiments

LABELS = ["neutral", "happy", "sad"]


def speakers(count=30):
    """Embeddings of two speakers, the second of a strange voice, and a classifier of the first one's."""
    rng = np.random.default_rng(0)
    targets = np.arange(2 * count) % 3
    names = np.repeat(["ann", "bob"], count)
    inputs = 4 * np.eye(3)[targets] + np.where(names == "bob", 1, 0)[:, None] * [0.0, 6.0, 0.0]
    classifier = SoftmaxClassifier(3, 3)
    with torch.no_grad():
        classifier.linear.weight.copy_(torch.eye(3))
        classifier.linear.bias.zero_()
    return classifier, (inputs + rng.normal(0, 0.3, inputs.shape)).astype(np.float32), targets, names


def test_clips_help_with_a_strange_voice_and_do_not_hurt_with_a_known_one():
    rows = measure_enrolment(*speakers(), repeats=2)
    assert rows.groupby(["speaker", "repeat"])["tested"].nunique().eq(1).all() and rows["tested"].eq(15).all()
    mean = rows.groupby(["speaker", "clips"])["uar"].mean()
    assert mean["bob", 0] < 0.5
    assert mean["bob", 5] > 0.9
    assert mean["ann"].eq(1).all()
    pd.testing.assert_frame_equal(rows, measure_enrolment(*speakers(), repeats=2))


def test_a_finished_fold_is_measured_by_what_it_left(tmp_path, write_model):
    rng = np.random.default_rng(0)
    write_model(tmp_path / "fold3" / "model", "s6")
    table = pd.DataFrame({"id": [f"c{i}" for i in range(24)], "speaker": "ann", "emotion": LABELS * 8})
    table.assign(predicted="sad").to_csv(tmp_path / "fold3" / "predictions.csv", index=False)
    np.savez(tmp_path / "fold3" / "embeddings.npz", id=table["id"].to_numpy(str), embedding=rng.random((24, 12), "f"))
    (tmp_path / "fold3" / "metrics.json").write_text(json.dumps({"fold": 3, "labels": LABELS, "n_test": 24}))
    rows = measure_folds([tmp_path / "fold3"], clips=[0, 2], repeats=2)
    assert rows[["fold", "clips", "tested"]].to_numpy().tolist() == [[3, 0, 18], [3, 2, 18]] * 2
    with pytest.raises(InputError, match="no fold is given"):
        measure_folds([])


def test_the_record_has_the_mean_of_each_speaker(tmp_path, monkeypatch):
    folder = tmp_path / "results/S6/ravdess/1/fold1"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({"strategy": "S6", "corpus": "ravdess", "seed": 1, "fold": 1}))
    [one] = read_experiments(tmp_path / "results")
    assert enrolment_cells(one, tmp_path) == []
    rows = measure_enrolment(*speakers(), repeats=2).assign(fold=1)
    monkeypatch.setattr(enrolment, "measure_folds", lambda folders: rows if folders == [folder] else None)
    file = record_enrolment(one, tmp_path)
    assert file == tmp_path / "S6/enrolment/1/ravdess.csv" and len(pd.read_csv(file)) == 2 * 4
    cells = enrolment_cells(one, tmp_path)
    for cell, clips in zip(cells, (0, 1, 3, 5), strict=True):
        each = rows[rows["clips"] == clips].groupby("speaker")["accuracy"].mean() * 100
        mean, low, high = (float(word.strip("[],")) for word in cell.split())
        assert mean == pytest.approx(each.mean(), abs=0.06)
        # Of two speakers, one resample in four has one of them alone: the ends are the speakers.
        assert (low, high) == pytest.approx((each.min(), each.max()), abs=0.06)
