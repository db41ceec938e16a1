"""A run on RAVDESS and CREMA-D together, from clips of the built-in corpus under their names."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from ser_plugins.corpora import cremad, ravdess
from ser_plugins.errors import InputError
from ser_plugins.experiments.published import measure
from ser_plugins.experiments.runs import read_experiments

LABELS = {"ravdess": list(ravdess.EMOTIONS), "cremad": list(cremad.CODES.values())}


@pytest.fixture(scope="module")
def results(audio, train, tmp_path_factory):
    """Three actors of each, one clip of each emotion."""
    root = tmp_path_factory.mktemp("both")
    for actor in (1, 2, 3):
        names = {f"03-01-{i:02d}-01-01-01-{actor:02d}": one for i, one in enumerate(ravdess.EMOTIONS, start=1)}
        clips = {"ravdess": names, "cremad": {f"{1000 + actor}_DFA_{c}_XX": one for c, one in cremad.CODES.items()}}
        for take, (name, stems) in enumerate(clips.items(), start=1):
            (root / name).mkdir(exist_ok=True)
            for stem, emotion in stems.items():
                source = next((audio / "synthetic").rglob(f"speaker{actor:02d}-{emotion}-{take}.wav"))
                shutil.copy(source, root / name / f"{stem}.wav")
    folders = {"data_folder": None, **{f"{name}_folder": root / name for name in LABELS}}
    options = {"corpus": "both", "allow_incomplete": "true", "pretrained_encoder": "none", "n_folds": 3}
    train("s5", root / "results" / "S5" / "both" / "1", **folders, **options, fold="1,2", batch_size=16)
    return root / "results"


@pytest.fixture(scope="module")
def fold(results):
    return results / "S5" / "both" / "1" / "fold1"


def test_each_corpus_is_measured_over_its_own_emotions(fold):
    metrics = json.loads((fold / "metrics.json").read_text())
    table = pd.read_csv(fold / "predictions.csv", dtype={"speaker": str})
    assert (metrics["corpus"], metrics["labels"], metrics["n_test"]) == ("ravdess+cremad", LABELS["ravdess"], 14)
    np.testing.assert_allclose(np.exp(table[LABELS["ravdess"]].to_numpy()).sum(1), 1, atol=1e-5)
    right = 0
    for name, labels in LABELS.items():
        rows = table[table["speaker"] == {"ravdess": "ravdess-01", "cremad": "cremad-1001"}[name]]
        assert set(rows["corpus"]) == {name}
        predicted = [labels[i] for i in rows[labels].to_numpy().argmax(1)]
        hits = [one == true for one, true in zip(predicted, rows["emotion"], strict=True)]
        found = metrics["corpora"][name]
        assert (found["labels"], found["n_test"]) == (labels, len(labels))
        assert found["accuracy"] == found["uar"] == pytest.approx(np.mean(hits))  # one clip of each emotion
        assert found["macro_f1"] == pytest.approx(f1_score(rows["emotion"], predicted, average="macro"))
        assert np.trace(found["confusion"]) == sum(hits) and np.sum(found["confusion"]) == len(labels)
        assert rows["predicted"].tolist() == predicted
        right += sum(hits)
    assert metrics["accuracy"] == pytest.approx(right / 14)


def test_tables_tell_both_and_each(results, fold):
    frame = measure(read_experiments(results), results, 2).set_index("corpus")
    frame = frame[frame["folder"].notna()]
    whole = [json.loads((fold.parent / f"fold{i}" / "metrics.json").read_text()) for i in (1, 2)]
    for name, actors in {"ravdess": 2, "cremad": 2, None: 4}.items():
        row = frame.loc["ravdess+cremad" if name is None else f"{name} (of ravdess+cremad)"]
        folds = whole if name is None else [metrics["corpora"][name] for metrics in whole]
        assert row["mean"] == pytest.approx(100 * np.mean([one["accuracy"] for one in folds]))
        assert row["uar"] == pytest.approx(100 * np.mean([one["uar"] for one in folds]))
        assert (row["n_actors"], row["n_folds"]) == (actors, 2)
        assert row["low"] - 1e-9 <= row["mean"] <= row["high"] + 1e-9  # all equal where folds are: but for rounding
    assert len(frame) == 3


def test_an_encoder_of_both_is_refused_where_it_knows_the_actors_of_one(results, fold, train, tmp_path):
    folder = results.parent / "cremad"
    own = {"corpus": "cremad", "data_folder": folder, "allow_incomplete": "true", "n_folds": 3, "fold": 2}
    with pytest.raises(InputError, match=r"trained on speakers of 6 utterances .*, as cremad-1003_DFA_ANG_XX"):
        train("s3", tmp_path / "out", **own, pretrained_encoder=fold / "model")
