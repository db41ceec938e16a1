"""The ensemble against probabilities that were averaged by hand."""

import json

import numpy as np
import pandas as pd
import pytest

from ser_plugins.errors import InputError
from ser_plugins.evaluation.results import read_runs
from ser_plugins.experiments.ensemble import average, ensemble_table
from ser_plugins.experiments.runs import read_experiments


@pytest.fixture
def add(tmp_path):
    """A fold of a strategy: speaker, emotion and the two probabilities of each utterance."""

    def make(strategy, fold, rows, **changes):
        folder = tmp_path / strategy / f"fold{fold}"
        folder.mkdir(parents=True)
        facts = {"strategy": strategy, "corpus": "own", "seed": 1, "synthetic": False, "fold": fold}
        (folder / "metrics.json").write_text(json.dumps({**facts, "labels": ["happy", "sad"], **changes}))
        table = pd.DataFrame(rows, columns=["id", "speaker", "emotion", "happy", "sad"])
        table["predicted"] = table[["happy", "sad"]].idxmax(axis=1)
        logs = np.log(table[["happy", "sad"]])
        table.assign(happy=logs["happy"], sad=logs["sad"]).to_csv(folder / "predictions.csv", index=False)

    return make


ONE = [("01", "ann", "happy", 0.4, 0.6), ("02", "ben", "sad", 0.1, 0.9), ("03", "ben", "happy", 0.6, 0.4)]
OTHER = [("03", "ben", "happy", 0.45, 0.55), ("01", "ann", "happy", 0.7, 0.3), ("02", "ben", "sad", 0.8, 0.2)]


def test_probabilities_of_each_utterance_are_averaged(add, tmp_path):
    add("A", 1, ONE)
    add("B", 1, OTHER)
    frame = average([*read_runs(tmp_path / "A"), *read_runs(tmp_path / "B")])
    # happy: (0.4 + 0.7) / 2, (0.1 + 0.8) / 2, (0.6 + 0.45) / 2
    assert dict(zip(frame["id"], frame["predicted"], strict=True)) == {"01": "happy", "02": "sad", "03": "happy"}


def test_members_and_ensemble_stand_side_by_side_on_the_folds_that_all_have(add, tmp_path):
    add("A", 1, ONE)
    add("A", 2, ONE)
    add("B", 1, OTHER)
    table = ensemble_table(read_experiments(tmp_path))
    assert table.title == "Ensemble: own, folds 1"
    found = {row[0].text: row[1].text for row in table.rows}
    assert found == {"A, seed 1": "66.67", "B, seed 1": "33.33", "all of them": "100.00"}
    assert "speaker-normalised" not in table.note


def test_a_speaker_normalised_member_is_named(add, tmp_path):
    add("A", 1, ONE)
    add("B", 1, OTHER, speaker_normalization="features")
    assert "B: speaker-normalised" in ensemble_table(read_experiments(tmp_path)).note


def test_what_cannot_be_averaged_is_refused(add, tmp_path):
    add("A", 1, ONE)
    add("B", 2, OTHER)
    add("C", 1, ONE[:2])
    add("D", 1, ONE, corpora={"own": {}})
    by_name = {one.strategy: one for one in read_experiments(tmp_path)}
    for names, message in (("AB", "no fold is finished in all"), ("AC", "other utterances"), ("DA", "merged corpora")):
        with pytest.raises(InputError, match=message):
            ensemble_table([by_name[name] for name in names])


def test_an_emotion_called_none_is_one(add, tmp_path):
    rows = [(name, speaker, {"happy": "None"}.get(emotion, emotion), *rest) for name, speaker, emotion, *rest in ONE]
    add("A", 1, rows, labels=["None", "sad"])
    file = tmp_path / "A" / "fold1" / "predictions.csv"
    file.write_text(file.read_text().replace("happy", "None"))
    assert ensemble_table(read_experiments(tmp_path)).rows
