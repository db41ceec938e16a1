"""Tables 2 and 3 against numpy, from the files alone."""

import csv
import json

import numpy as np
import pytest

from ser_plugins.errors import InputError
from ser_plugins.evaluation.intervals import accuracy_interval
from ser_plugins.evaluation.results import read_runs
from ser_plugins.experiments.page import paper_tables
from ser_plugins.experiments.published import measure, write_table
from ser_plugins.experiments.runs import read_experiments


@pytest.fixture(scope="module")
def rows(results):
    write_table(results, 2)
    return json.loads((results / "table2.json").read_text())


def values_of(folder, name):
    files = sorted(folder.glob("fold*/metrics.json"), key=lambda file: int(file.parent.name[4:]))
    return 100 * np.array([json.loads(file.read_text())[name] for file in files])


def test_each_experiment_has_the_numbers_of_its_folds(rows, results):
    measured = [row for row in rows if row["folder"]]
    assert {row["folder"] for row in measured} == {
        *("S1/cremad/7", "S1/own/1"),
        *(f"S{i}/ravdess/1" for i in (1, 3, 4, 5)),
    }
    for row in measured:
        accuracy = values_of(results / row["folder"], "accuracy")
        std = accuracy.std(ddof=1) if len(accuracy) > 1 else None
        expected = {"mean": accuracy.mean(), "min": accuracy.min(), "max": accuracy.max(), "std": std}
        assert {name: row[name] for name in expected} == pytest.approx(expected)
        assert row["uar"] == pytest.approx(values_of(results / row["folder"], "uar").mean())
        assert row["macro_f1"] == pytest.approx(values_of(results / row["folder"], "macro_f1").mean())
        assert row["n_folds"] == len(accuracy)
        for name in ("min", "max"):
            metrics = results / row["folder"] / f"fold{row[f'{name}_fold']}" / "metrics.json"
            assert 100 * json.loads(metrics.read_text())["accuracy"] == pytest.approx(row[name])


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["none", "none"], "none"),
        ([None, None], "none"),
        (["S3/fold1/model", "S3/fold2/model"], "S3/fold{fold}/model"),
        (["S7/cremad/fold1/model", "S7/cremad/fold1/model"], "S7/cremad/fold1/model"),
        (["S3/fold1/model", "speakers"], "S3/fold1/model, speakers"),
    ],
)
def test_initial_weights_are_named_once(fold, tmp_path, sources, expected):
    for number, source in enumerate(sources, start=1):
        fold(tmp_path / "S5", number, 0.5, strategy="S5", corpus="ravdess", seed=1, pretrained_encoder=source)
    frame = measure(read_experiments(tmp_path), tmp_path, 2).set_index("strategy")
    assert frame.loc["S5", "initial_weights"] == expected


@pytest.mark.parametrize("strategy", ["S1", "S3", "S4"])
def test_the_interval_is_in_percent_and_around_the_mean(rows, results, strategy):
    row = next(row for row in rows if row["folder"] == f"{strategy}/ravdess/1")
    frames = [run.predictions() for run in read_runs(results / row["folder"])]
    assert (row["low"] / 100, row["high"] / 100) == pytest.approx(accuracy_interval(frames))
    assert row["low"] < row["mean"] < row["high"]


def test_published_numbers_are_beside_ours(rows):
    paper = {(row["corpus"], row["strategy"]): row["paper_mean"] for row in rows}
    ravdess = [67.94, 74.81, 79.78, 80.93, 83.55]
    cremad = [53.38, 59.47, 61.25, 62.44, 64.92]
    assert [paper["ravdess", f"S{i}"] for i in range(1, 6)] == ravdess
    assert [paper["cremad", f"S{i}"] for i in range(1, 6)] == cremad
    assert paper["cremad", "human observers"] == 40.90 and paper["<b>own", "S1"] is None
    s5 = next(row for row in rows if (row["corpus"], row["strategy"]) == ("cremad", "S5"))
    assert [s5[f"paper_{name}"] for name in ("min", "max", "std")] == [62.85, 66.84, 1.16]
    assert s5["mean"] is None and s5["folder"] is None
    assert all("Mocanu" in row["source"] for row in rows if row["paper_mean"])


def test_the_three_files_say_the_same(rows, results):
    with (results / "table2.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["strategy"] for row in found] == [row["strategy"] for row in rows]
    assert [float(row["mean"]) for row in found if row["mean"]] == pytest.approx(
        [row["mean"] for row in rows if row["mean"]]
    )
    text = (results / "table2.md").read_text()
    for row in rows:
        assert all(f"{row[name]:.2f}" in text for name in ("mean", "low", "uar", "paper_std") if row[name])


def test_sweeps_are_left_out_and_nothing_else_is_an_error(results, tmp_path, fold):
    with pytest.raises(InputError, match="no finished fold"):
        write_table(tmp_path, 2)
    fold(tmp_path / "sweeps" / "clusters" / "4" / "S3", 1, 0.5, strategy="S3", corpus="ravdess", seed=1)
    with pytest.raises(InputError, match="no run of Table 2"):
        write_table(tmp_path, 2)
    settings = [one.setting for one in read_experiments(results) if one.setting]
    assert settings == sorted(settings[:4]) + sorted(settings[4:]) and ("alpha", 0.05) in settings


def test_published_results_of_other_corpora_are_not_shown(results):
    own = [one for one in read_experiments(results) if one.corpus == "<b>own"]
    assert measure(own, results, 2)["strategy"].tolist() == ["S1"]


@pytest.mark.parametrize("keys", [{"told_speakers": True}, {"speaker_normalization": "features+embeddings"}])
def test_speaker_normalisation_is_a_note(tmp_path, fold, keys):
    fold(tmp_path / "S6" / "ravdess" / "1", 1, 0.5, strategy="S6", corpus="ravdess", seed=1)
    assert "unlabelled" not in write_table(tmp_path, 2).read_text()
    fold(tmp_path / "S7" / "ravdess" / "1", 1, 0.6, strategy="S7", corpus="ravdess", seed=1, **keys)
    expected = "S7: speaker-normalised, with all unlabelled test utterances of an actor"
    assert expected in write_table(tmp_path, 2).read_text()


def test_table3_has_the_methods_that_the_paper_compares(tmp_path, fold):
    for strategy in ("S1", "S5", "Huang", "Bhavan"):
        fold(tmp_path / strategy / "ravdess" / "1", 1, 0.5, strategy=strategy, corpus="ravdess", seed=1)
    rows = {}
    for number in (2, 3):
        assert write_table(tmp_path, number).read_text().startswith(f"## Table {number}: ravdess")
        rows[number] = {row["strategy"]: row for row in json.loads((tmp_path / f"table{number}.json").read_text())}
    assert set(rows[2]) == {f"S{i}" for i in range(1, 6)}
    assert set(rows[3]) == {"Bhavan", "Issa", "Kumar", "Ghaleb", "Huang", "S5"}
    published = {name: row["paper_mean"] for name, row in rows[3].items() if row["paper_mean"]}
    assert published == {"Bhavan": 75.69, "Issa": 71.61, "S5": 83.35} and rows[2]["S5"]["paper_mean"] == 83.55
    assert {name for name, row in rows[3].items() if row["mean"]} == {"S5", "Huang", "Bhavan"}
    assert rows[3]["S5"]["mean"] == rows[2]["S5"]["mean"]
    titles = [table.title for table in paper_tables(read_experiments(tmp_path), tmp_path)]
    assert titles == ["Table 2: ravdess", "Table 3: ravdess"]


def test_the_report_has_no_table3_of_s5_alone(results):
    assert not any("Table 3" in table.title for table in paper_tables(read_experiments(results), results))
