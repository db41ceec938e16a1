"""Models that predict a corpus themselves: whom they may predict, and with which probabilities."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

import ser_plugins
from ser_plugins.corpora.corpus import Corpus
from ser_plugins.corpora.folds import fold_parts
from ser_plugins.corpora.synthetic import speak
from ser_plugins.errors import InputError
from ser_plugins.evaluation.distortions import distortions
from ser_plugins.evaluation.protocol import Reference, reference
from ser_plugins.inference import predict, speaker_statistics
from ser_plugins.inference.corpus import RECORDED, babble_crowd, find_corpus, predict_corpus, read_member
from ser_plugins.model_folder.lineage import Training, file_sha256, speaker_keys, write_lineage

LABELS = ["neutral", "happy", "sad"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A table of three speakers, three emotions and two takes, and its audio."""
    folder = tmp_path_factory.mktemp("own")
    rows = []
    for speaker in (1, 2, 3):
        for emotion in LABELS:
            for take in (1, 2):
                name = f"{speaker}-{emotion}-{take}.wav"
                soundfile.write(folder / name, speak(0, speaker, emotion, take), 16000)
                rows.append((name, emotion, f"s{speaker}", "female" if speaker == 1 else "male"))
    pd.DataFrame(rows, columns=["path", "emotion", "speaker", "sex"]).to_csv(folder / "own.csv", index=False)
    return find_corpus("table", folder / "own.csv")[0]


def trained_on(model, *speakers, **changes):
    facts = {"run_id": "r", "strategy": "S1", "corpus": "table", "fold": 1, "seed": 1, "sha256": "0" * 64, **changes}
    write_lineage(model, [Training(**facts, speakers=speaker_keys(speakers))])
    return model


@pytest.fixture
def models(tmp_path, write_model):
    """Two models of other weights, trained on the speakers 1 and 2, 1 and 3."""
    return [
        trained_on(write_model(tmp_path / "a", "s1", 1), "table-s1", "table-s2"),
        trained_on(write_model(tmp_path / "b", "s1", 2), "table-s1", "table-s3"),
    ]


def by_hand(model, table, labels=LABELS):
    return predict(ser_plugins.load(model, device="cpu"), table["path"], labels=labels)[labels].to_numpy()


def test_each_predicts_only_speakers_that_it_was_not_trained_on(corpus, models):
    found = predict_corpus(models, corpus)
    assert found.reference.table["speaker"].unique().tolist() == ["s2", "s3"]
    assert found.notes == ["6 utterances of 1 speaker(s) that were trained or validated on are left out."]
    for speaker, model in (("s3", models[0]), ("s2", models[1])):
        rows = found.reference.table["speaker"] == speaker
        expected = by_hand(model, found.reference.table[rows])
        order = [found.reference.labels.index(one) for one in LABELS]
        np.testing.assert_allclose(found.systems[RECORDED].probabilities[rows][:, order], expected, atol=1e-5)
    table = found.systems[RECORDED].table
    assert (table["sex"] == "male").all() and table["predicted"].isin(LABELS).all()


def test_several_are_averaged_and_those_of_one_network_share_it(corpus, models, write_model, tmp_path, monkeypatch):
    import ser_plugins.inference.corpus as module
    from ser_plugins.inference.batches import embed_speech

    for model in models:
        trained_on(model, "other-s1")
    found = predict_corpus([*models, models[0]], corpus)  # given twice, it counts once
    assert len(found.reference.table) == 18 and found.notes == []
    expected = sum(by_hand(model, corpus.table, list(corpus.labels)) for model in models) / 2
    np.testing.assert_allclose(found.systems[RECORDED].probabilities, expected, atol=1e-5)

    twin = trained_on(write_model(tmp_path / "c", "s1", 1), "other-s1")
    calls = []
    monkeypatch.setattr(module, "embed_speech", lambda *words, **keys: calls.append(1) or embed_speech(*words, **keys))
    predict_corpus([models[0], twin], corpus)
    assert len(calls) == 3  # one a speaker
    calls.clear()
    predict_corpus(models, corpus)
    assert len(calls) == 6


def test_the_validation_block_of_its_fold_is_left_out(corpus, models):
    blocks = Reference("table", corpus.labels, corpus.table.assign(block=corpus.table["speaker"].str[1].astype(int)))
    trained_on(models[0], "table-s1", fold=2)  # validates on block 3
    assert predict_corpus(models[:1], blocks).reference.table["speaker"].unique().tolist() == ["s2"]
    part = corpus.table.assign(block=corpus.table["speaker"].map({"s1": 1, "s2": 2, "s3": 2}))
    trained_on(models[0], "ravdess-s9", fold=2, corpus="ravdess")  # validates on block 3, of which nobody is here
    assert len(predict_corpus(models[:1], Reference("ravdess", corpus.labels, part)).reference.table) == 18
    trained_on(models[0], "table-s1", fold=2, corpus="elsewhere")
    assert predict_corpus(models[:1], blocks).reference.table["speaker"].nunique() == 2


@pytest.mark.parametrize(("n_folds", "split"), [(5, "speaker"), (10, "speaker"), (3, "utterance")])
def test_validation_speakers_are_those_of_the_training_itself(models, n_folds, split):
    """Whatever its folds are; from a record that the training's own division of RAVDESS makes."""
    whole = reference("ravdess")
    full = Corpus("ravdess", whole.labels, whole.table.drop(columns="block").assign(path="", fault=""))
    parts = fold_parts(full, 2, n_folds, split)
    named = {name: "ravdess-" + table["speaker"] for name, table in parts.items()}
    weights = models[0] / "embedding_model.ckpt"
    facts = {"run_id": "r", "strategy": "S1", "corpus": "ravdess", "fold": 2, "seed": 1, "synthetic": False}
    metrics = {**facts, "commit": None, "pretrained_encoder": "none", "n_train": len(parts["train"])}
    own = Training.of_run(metrics, weights, named["train"], valid_speakers=named["valid"])
    write_lineage(models[0], [own])
    unheard = set(parts["test"]["speaker"]) if split == "speaker" else set()
    assert read_member(models[0]).known_speakers(whole) == set(full.speakers) - unheard
    # An encoder's own training counts, and so does a model after an enrolment.
    enrolled = Training("e", "enrol", "ann", None, 0, file_sha256(weights), speakers=speaker_keys(["ann-ann"]))
    write_lineage(models[0], [own, enrolled])
    assert read_member(models[0]).known_speakers(whole) == set(full.speakers) - unheard


def test_records_without_validation_speakers_are_of_ten_folds(models):
    whole = reference("ravdess")
    trained_on(models[0], "ravdess-01", corpus="ravdess", fold=10)
    records = json.loads((models[0] / "lineage.json").read_text())
    (models[0] / "lineage.json").write_text(
        json.dumps([{key: value for key, value in one.items() if key != "valid_speakers"} for one in records])
    )
    first = set(whole.table["speaker"][whole.table["block"] == 1])
    assert read_member(models[0]).known_speakers(whole) == first | {"01"} and len(first) > 1


def test_a_record_that_says_nothing_is_told_plainly(corpus, models):
    said = "does not record all training speakers: it may know speakers of table."
    trained_on(models[0])
    assert predict_corpus(models[:1], corpus).notes == [f"{models[0]} {said}"]
    trained_on(models[0], "other-s1", start="some/encoder")
    assert predict_corpus(models[:1], corpus).notes == [f"{models[0]} {said}"]
    (models[0] / "lineage.json").unlink()
    assert predict_corpus(models[:1], corpus).notes == [f"{models[0]} {said}"]


def test_emotions_are_those_that_both_have(corpus, tmp_path, write_model):
    model = trained_on(write_model(tmp_path / "m", "s1", labels=["calm", "sad", "happy"]), "other-s1")
    found = predict_corpus([model], corpus)
    assert found.reference.labels == ("happy", "sad") and set(found.reference.table["emotion"]) == {"happy", "sad"}
    assert found.notes == ["6 utterances of emotions that the model does not have are left out: neutral."]
    # Renormalised by hand.
    scores = by_hand(model, found.reference.table, ["calm", "sad", "happy"])
    for row, (_, sad, happy) in zip(found.systems[RECORDED].probabilities, scores, strict=True):
        assert row == pytest.approx([happy / (happy + sad), sad / (happy + sad)], abs=1e-5)


def test_statistics_of_a_speaker_are_measured(corpus, tmp_path, write_model):
    model = trained_on(write_model(tmp_path / "m", "s8"), "other-s1")
    found = predict_corpus([model], corpus)
    assert found.notes == ["Speaker-normalised, by all unlabelled utterances of a speaker that are predicted."]
    loaded = ser_plugins.load(model, device="cpu")
    rows = corpus.table["speaker"] == "s2"
    paths = corpus.table["path"][rows]
    expected = predict(loaded, paths, speaker=speaker_statistics(loaded, paths))[list(corpus.labels)]
    np.testing.assert_allclose(found.systems[RECORDED].probabilities[rows], expected, atol=1e-4)


def test_distortions_do_not_depend_on_the_other_utterances(corpus, models):
    given = {
        "noise": distortions(babble_crowd(corpus))["white noise, 0 dB"],
        "none": lambda samples, rate, draws: samples,
    }
    found = predict_corpus(models, corpus, given)
    clean, noisy, same = (found.systems[name].probabilities for name in (RECORDED, "noise", "none"))
    assert np.array_equal(clean, same) and not np.allclose(clean, noisy, atol=1e-3)
    part = Reference("table", corpus.labels, corpus.table[corpus.table["speaker"] == "s3"])
    alone = predict_corpus(models, part, given).systems["noise"].probabilities
    np.testing.assert_allclose(alone, noisy[found.reference.table["speaker"] == "s3"], atol=1e-5)


def test_what_cannot_be_evaluated_is_one_line(corpus, models, tmp_path, write_model):
    trained_on(models[0], "table-s1", "table-s2", "table-s3")
    with pytest.raises(InputError, match="knows all speakers of table, by its lineage; give a model of another fold"):
        predict_corpus(models[:1], corpus)
    other = write_model(tmp_path / "o", "s1", labels=["calm", "sad"])
    with pytest.raises(InputError, match="has other emotions than"):
        predict_corpus([models[1], other], corpus)
    with pytest.raises(InputError, match=r"knows 1 of the emotions of table, happy, neutral, sad; it has calm, sad"):
        predict_corpus([other], corpus)


def test_files_are_found_and_missing_ones_counted(tmp_path):
    for stem in ("03-01-03-01-01-01-05", "03-01-04-02-01-01-06"):
        soundfile.write(tmp_path / f"{stem}.wav", 0.1 * torch.randn(8000).numpy(), 16000)
    found, notes = find_corpus("ravdess", tmp_path)
    assert found.table[["speaker", "emotion", "sex", "block"]].to_numpy().tolist() == [
        ["05", "happy", "male", 3],
        ["06", "sad", "female", 3],
    ]
    assert notes == [f"1438 of 1440 utterances have no file below {tmp_path}."]
    with pytest.raises(InputError, match=re.escape("none of its 7442 files is below")):
        find_corpus("cremad", tmp_path)
