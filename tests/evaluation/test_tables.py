"""Summaries against numpy."""

import json
import shutil

import numpy as np
import pytest

from ser_plugins.errors import InputError
from ser_plugins.evaluation.results import read_runs
from ser_plugins.evaluation.tables import MEASURES, summarise

KEYS = {"strategy": "S5", "corpus": "ravdess", "seed": 3, "synthetic": False}


def write(folder, values, **keys):
    """One fold for each row of ``values`` [folds, measures], the last first."""
    for fold, row in reversed(list(enumerate(values, start=1))):
        path = folder / f"fold{fold}" / "metrics.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({**KEYS, **keys, "fold": fold, **dict(zip(MEASURES, row, strict=True))}))


@pytest.mark.parametrize("folds", [2, 3, 12])
def test_summary_is_that_of_numpy(tmp_path, folds):
    values = np.random.default_rng(folds).uniform(0.5, 1, (folds, 3))
    write(tmp_path, values.tolist())
    summary = summarise(tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert {key: summary[key] for key in KEYS} == KEYS
    assert summary["folds"] == list(range(1, folds + 1))
    for name, column in zip(("accuracy", "uar", "macro_f1"), values.T, strict=True):
        expected = {"mean": column.mean(), "min": column.min(), "max": column.max(), "std": column.std(ddof=1)}
        assert summary[name] == pytest.approx(expected)


def test_markdown_has_a_row_a_measure_and_a_row_a_fold(tmp_path):
    write(tmp_path, [[0.5, 0.4, 0.3], [0.7, 0.8, 0.9]])
    summarise(tmp_path)
    assert (tmp_path / "summary.md").read_text().splitlines() == [
        "# S5 on ravdess, 2 fold(s), seed 3",
        "",
        "| % | mean | min | max | std |",
        "|---|---|---|---|---|",
        "| accuracy | 60.00 | 50.00 | 70.00 | 14.14 |",
        "| uar | 60.00 | 40.00 | 80.00 | 28.28 |",
        "| macro_f1 | 60.00 | 30.00 | 90.00 | 42.43 |",
        "",
        "| fold | accuracy | uar | macro_f1 |",
        "|---|---|---|---|",
        "| 1 | 50.00 | 40.00 | 30.00 |",
        "| 2 | 70.00 | 80.00 | 90.00 |",
    ]


def test_one_fold_has_no_deviation_and_synthetic_audio_is_marked(tmp_path):
    write(tmp_path, [[0.5, 0.4, 0.3]], corpus="demo", synthetic=True)
    assert summarise(tmp_path)["accuracy"] == {"mean": 0.5, "min": 0.5, "max": 0.5, "std": None}
    assert "| accuracy | 50.00 | 50.00 | 50.00 | – |" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "# S5 on demo (synthetic audio), 1 fold(s)" in (tmp_path / "summary.md").read_text()


def test_folds_are_in_order_of_their_numbers_and_unfinished_ones_left_out(tmp_path):
    write(tmp_path, [[0.5, 0.5, 0.5]] * 11)
    (tmp_path / "fold2" / "metrics.json").unlink()
    assert [run.fold for run in read_runs(tmp_path)] == [1, *range(3, 12)]


def test_a_copy_of_a_fold_is_left_out(tmp_path):
    write(tmp_path / "S5", [[0.5, 0.4, 0.3], [0.7, 0.8, 0.9]])
    shutil.copytree(tmp_path / "S5" / "fold1", tmp_path / "S5" / "fold1_old")
    shutil.copytree(tmp_path / "S5" / "fold1", tmp_path / "S4" / "fold 1")
    assert summarise(tmp_path / "S5")["folds"] == [1, 2]
    assert not read_runs(tmp_path / "S4")


def test_a_copy_of_a_fold_among_the_folds_is_refused(tmp_path):
    write(tmp_path, [[0.5, 0.4, 0.3]])
    shutil.copytree(tmp_path / "fold1", tmp_path / "fold3")
    with pytest.raises(InputError, match="fold3 holds fold 1; move the copy elsewhere"):
        read_runs(tmp_path)


@pytest.mark.parametrize("text", ["[1, 2]", '{"strategy": "S5"}', "3"])
def test_metrics_of_another_form_are_named(tmp_path, text):
    write(tmp_path, [[0.5, 0.4, 0.3]])
    (tmp_path / "fold1" / "metrics.json").write_text(text)
    what = "has no fold" if "{" in text else "cannot be read"
    with pytest.raises(InputError, match=f"fold1/metrics.json {what}; delete its folder and train again"):
        read_runs(tmp_path)


def test_truncated_predictions_and_embeddings_are_named(tmp_path):
    write(tmp_path, [[0.5, 0.4, 0.3]], n_test=2)
    (run,) = read_runs(tmp_path)
    for content in ("id,speaker,emotion,predicted\n1,2,3,4\n", "speaker,emotion,predicted\n2,3,4\n2,3,4\n"):
        (run.folder / "predictions.csv").write_text(content)
        with pytest.raises(InputError, match=r"fold1/predictions.csv is incomplete; delete its folder"):
            run.scores()
    np.savez(run.embeddings_file, embedding=np.zeros((20, 30)))
    run.embeddings_file.write_bytes(run.embeddings_file.read_bytes()[:500])
    with pytest.raises(InputError, match=r"fold1/embeddings.npz cannot be read; delete its folder"):
        run.embeddings()


@pytest.mark.parametrize("name", ["metrics.json", "predictions.csv"])
def test_a_damaged_fold_is_named(tmp_path, name):
    write(tmp_path, [[0.5, 0.4, 0.3]])
    (tmp_path / "fold1" / "predictions.csv").write_text("id,speaker,emotion,predicted\n1,2,3,4\n")
    assert read_runs(tmp_path)[0].predictions().to_numpy().tolist() == [["1", "2", "3", "4"]]
    (tmp_path / "fold1" / name).write_text("")
    with pytest.raises(InputError, match=rf"fold1.{name} cannot be read; delete its folder and train again"):
        read_runs(tmp_path)[0].predictions()


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, False),
        ({"told_speakers": False}, False),
        ({"told_speakers": True}, True),
        ({"speaker_normalization": "none"}, False),
        ({"speaker_normalization": "features"}, True),
        ({"speaker_normalization": "features+embeddings"}, True),
    ],
)
def test_speaker_normalisation_is_read_from_old_and_new_metrics(tmp_path, keys, expected):
    write(tmp_path, [[0.5, 0.4, 0.3]], **keys)
    assert read_runs(tmp_path)[0].normalizes_by_speaker is expected
