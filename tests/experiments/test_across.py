"""Results across corpora: which utterances, emotions and models a cell is of."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score

from ser_plugins.errors import InputError
from ser_plugins.evaluation.protocol import reference
from ser_plugins.evaluation.system import System
from ser_plugins.experiments import across
from ser_plugins.experiments.runs import read_experiments
from ser_plugins.experiments.summary import measured, results_page
from ser_plugins.inference.corpus import RECORDED, Predicted

COMMON = {"angry", "disgust", "fearful", "happy", "neutral", "sad"}
FACTS = {"strategy": "S1", "seed": 1, "synthetic": False, "accuracy": 0.5, "uar": 0.5, "macro_f1": 0.5, "seconds": 60.0}
FACTS |= {"pretrained_encoder": "none", "commit": "abc", "command": "python recipes/train.py"}


@pytest.fixture
def results(tmp_path):
    """Ten folds of RAVDESS with random log-probabilities of its eight emotions."""
    whole, rng = reference("ravdess"), np.random.default_rng(0)
    for fold, table in whole.table.groupby("block"):
        folder = tmp_path / f"S1/ravdess/1/fold{fold}"
        folder.mkdir(parents=True)
        scores = pd.DataFrame(np.log(rng.dirichlet(np.ones(8), len(table))), columns=whole.labels, index=table.index)
        scores = pd.concat([table[["id", "speaker", "emotion"]].assign(predicted="calm"), scores], axis=1)
        scores.to_csv(folder / "predictions.csv", index=False)
        facts = {**FACTS, "corpus": "ravdess", "fold": int(fold), "n_test": len(table), "labels": whole.labels}
        (folder / "metrics.json").write_text(json.dumps(facts))
    return tmp_path


@pytest.fixture
def asked(monkeypatch):
    """Let the models predict CREMA-D: always angry, but for one actor."""
    calls = []

    def predict(models, corpus):
        calls.append(([Path(model) for model in models], set(corpus.table["speaker"])))
        table = corpus.table
        predicted = table["emotion"].where(table["speaker"] == "1001", "angry")
        return Predicted(corpus, {RECORDED: System("s", table.assign(predicted=predicted), None)}, [], [])

    monkeypatch.setattr(across, "predict_corpus", predict)
    monkeypatch.setattr(across, "find_corpus", lambda name, folder: (reference(name), []))
    return calls


def test_six_emotions_are_common():
    assert set(across.COMMON) == COMMON


def test_the_diagonal_is_of_renormalised_probabilities(results):
    [one] = read_experiments(results)
    found = across.within(one).set_index("id")["predicted"]
    assert len(found) == 1440 - 2 * 192  # without calm and surprised
    for run in one.runs[:2]:
        for row in run.scores().to_dict("records"):
            if row["emotion"] not in COMMON:
                assert row["id"] not in found
                continue
            shares = {name: np.exp(row[name]) for name in COMMON}
            total = sum(shares.values())
            assert found[row["id"]] == max(shares, key=lambda name: shares[name] / total)


def test_each_model_predicts_a_block_of_the_other_corpus_and_the_page_has_the_matrix(results, asked, tmp_path):
    experiments = read_experiments(results)
    assert "Across corpora" not in results_page(experiments, measured(experiments, results), results)
    folders = {"ravdess": tmp_path, "cremad": tmp_path}
    [file] = across.predict_across(experiments, folders, results)
    assert file == results / "S1/across/1/ravdess-cremad.csv.gz"
    assert [models for models, _ in asked] == [[results / f"S1/ravdess/1/fold{k}/model"] for k in range(1, 11)]
    blocks = reference("cremad").table.groupby("block")["speaker"].agg(set)
    assert [speakers for _, speakers in asked] == blocks.sort_index().tolist()
    before = file.read_bytes()
    across.predict_across(experiments, folders, results)
    assert before == file.read_bytes()

    page = results_page(read_experiments(results), measured(experiments, results), results)
    [row] = [line for line in page.split("## Across corpora")[1].splitlines() if line.startswith("| S1 ")]
    trained, folds, ravdess, cremad = [cell.strip() for cell in row.strip("|").split("|")][2:]
    table = reference("cremad").table
    predicted = table["emotion"].where(table["speaker"] == "1001", "angry")
    assert (trained, folds) == ("RAVDESS", "10")
    assert float(cremad.split()[0]) == pytest.approx(
        100 * balanced_accuracy_score(table["emotion"], predicted), abs=0.051
    )
    own = across.within(experiments[0])
    assert float(ravdess.split()[0]) == pytest.approx(
        100 * balanced_accuracy_score(own["emotion"], own["predicted"]), abs=0.051
    )
    low, high = map(float, cremad[cremad.index("[") + 1 : -1].split(", "))
    assert low < float(cremad.split()[0]) < high


def test_fewer_models_take_turns(results, asked, tmp_path):
    for fold in range(4, 11):
        (results / f"S1/ravdess/1/fold{fold}/metrics.json").unlink()
    [one] = read_experiments(results)
    across.predict_across([one], {"ravdess": tmp_path, "cremad": tmp_path}, results)
    blocks = reference("cremad").table.groupby("block")["speaker"].agg(set)
    for (models, speakers), own in zip(asked, ([1, 4, 7, 10], [2, 5, 8], [3, 6, 9]), strict=True):
        assert models == [results / f"S1/ravdess/1/fold{own[0]}/model"] and speakers == set().union(*blocks[own])
    folds, ravdess, _ = across.across_cells(one, results)
    own = pd.concat([run.scores() for run in one.runs]).merge(across.within(one)[["id"]])
    assert folds == "3" and float(ravdess.split()[0]) == pytest.approx(
        100 * balanced_accuracy_score(own["emotion"], own[sorted(COMMON)].idxmax(axis=1)), abs=0.051
    )


def test_parts_are_refused(results, asked, tmp_path, monkeypatch):
    experiments = read_experiments(results)
    folders = {"ravdess": tmp_path, "cremad": tmp_path}
    with pytest.raises(InputError, match="is of ravdess; give experiments of cremad"):
        across.predict_across(experiments, {"cremad": tmp_path}, results)
    monkeypatch.setattr(across, "find_corpus", lambda name, folder: (reference(name), ["3 of 7442 have no file."]))
    with pytest.raises(InputError, match="3 of 7442 have no file; give the whole corpus"):
        across.predict_across(experiments, folders, results)
    for file in results.rglob("metrics.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "split": "utterance"}))
    with pytest.raises(InputError, match="is divided by utterance; give experiments with folds of disjoint speakers"):
        across.predict_across(read_experiments(results), folders, results)
    part = pd.DataFrame({"id": ["1001_DFA_ANG_XX"], "predicted": ["angry"]})
    with pytest.raises(InputError, match="cremad: 7441 utterances have no prediction; run across again"):
        across.with_truth(part, "cremad")


def test_the_models_of_the_package_have_rows(tmp_path):
    folder, rng = tmp_path / "models/emotions", np.random.default_rng(0)
    folder.mkdir(parents=True)
    expected = []
    for name in ("ravdess", "cremad"):
        table = reference(name).table.query("emotion in @COMMON").head(400)
        table = table.assign(predicted=rng.choice(sorted(COMMON), len(table)))
        table.to_csv(folder / f"{name}.csv.gz", index=False)
        expected.append(100 * balanced_accuracy_score(table["emotion"], table["predicted"]))
    [[name, seed, trained, folds, *cells]] = across.package_cells(tmp_path)
    assert (name, seed, trained, folds) == ("`builtin:emotions`", "–", "CREMA-D", "1")
    assert [float(cell.split()[0]) for cell in cells] == pytest.approx(expected, abs=0.051)
