"""Enrolment: the adapted classifier against scikit-learn, on a synthetic speaker, and as its user runs it."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from sklearn.linear_model import LogisticRegression

from ser_plugins import LogisticClassifier, SoftmaxClassifier, SVMClassifier, load
from ser_plugins.commands import main
from ser_plugins.errors import InputError
from ser_plugins.inference import predict
from ser_plugins.inference.enrolment import adapt_classifier
from ser_plugins.model_folder.checks import check_model_folder
from ser_plugins.model_folder.lineage import heard_speakers, read_lineage, tells_speakers
from ser_plugins.model_folder.saving import save_model_folder

LABELS = ["neutral", "happy", "sad"]


def blobs(count, seed, shift=0.0):
    """Embeddings of three emotions, and their classes; a speaker's are shifted."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(0, 2, (3, 6))
    labels = np.arange(count) % 3
    return (centres[labels] + shift + rng.normal(0, 0.7, (count, 6))).astype(np.float32), labels


@pytest.mark.parametrize("strength", [0.1, 1.0, 30.0])
def test_from_weights_of_zero_it_is_logistic_regression(strength):
    inputs, labels = blobs(30, 0)
    inputs = np.abs(inputs)  # which the softmax classifier takes as they are
    classifier = SoftmaxClassifier(6, 3)
    for weight in classifier.parameters():
        torch.nn.init.zeros_(weight)
    size = np.sqrt((inputs**2).sum(1).mean())
    with_constant = np.hstack([inputs / size, np.ones((30, 1))])  # scikit-learn does not penalise its own
    expected = LogisticRegression(C=1 / strength, fit_intercept=False, tol=1e-8).fit(with_constant, labels)
    with torch.no_grad():
        found = adapt_classifier(classifier, inputs, labels, strength)(torch.from_numpy(inputs)).exp()
    np.testing.assert_allclose(found, expected.predict_proba(with_constant), atol=1e-3)


def trained():
    inputs, labels = blobs(300, 1)
    return LogisticClassifier(3).fit(inputs, labels, inputs, labels)


def accuracy(classifier, inputs, labels):
    with torch.no_grad():
        return float((classifier(torch.from_numpy(inputs)).argmax(-1).numpy() == labels).mean())


def test_a_few_clips_help_with_a_strange_voice():
    classifier, centres = trained(), np.random.default_rng(9).normal(0, 2, (3, 6))
    shift = centres[1] - centres[0]  # all sounds happy
    few, labels = blobs(9, 2, shift)
    rest, known = blobs(300, 3, shift)
    before = accuracy(classifier, rest, known)
    after = accuracy(adapt_classifier(classifier, few, labels), rest, known)
    assert before < 0.5
    assert after > 0.9


def test_no_clip_or_a_great_strength_leaves_the_classifier_as_it_is():
    classifier, (inputs, labels) = trained(), blobs(9, 2, 3.0)
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    none = adapt_classifier(classifier, np.empty((0, 6)), [])
    for name, value in none.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    strong = adapt_classifier(classifier, inputs, labels, strength=1e9)
    for name, value in strong.state_dict().items():
        torch.testing.assert_close(value, before[name])
    adapt_classifier(classifier, inputs, labels)
    for name, value in classifier.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)  # the one given stays


def test_an_emotion_without_clips_keeps_its_weights():
    classifier, (inputs, labels) = trained(), blobs(9, 2, 3.0)
    two = labels != 1
    adapted = adapt_classifier(classifier, inputs[two], labels[two])
    torch.testing.assert_close(adapted.weight[1], classifier.weight[1], rtol=0, atol=0)
    torch.testing.assert_close(adapted.weight.sum(0), classifier.weight.sum(0), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("classifier", "labels", "strength", "message"),
    [
        (SVMClassifier(3), [0, 1], 1.0, "SVMClassifier cannot be adapted; enrol on a model with SoftmaxClassifier"),
        (SoftmaxClassifier(6, 3), [0, 3], 1.0, "label 3 is no class index"),
        (SoftmaxClassifier(6, 3), [0], 1.0, "1 labels for embeddings"),
        (SoftmaxClassifier(6, 3), [0, 1], 0.0, "strength must be above 0"),
    ],
)
def test_what_cannot_be_adapted_is_named(classifier, labels, strength, message):
    with pytest.raises(InputError, match=message):
        adapt_classifier(classifier, np.ones((2, 6)), labels, strength)


@pytest.fixture(scope="module")
def person(tmp_path_factory, tiny_model):
    """A model of S6, and clips of a person whose emotions are tones: eight of each."""
    folder = tmp_path_factory.mktemp("person")
    built, yaml = tiny_model("s6")
    torch.nn.init.normal_(built["classifier"].linear.weight, std=0.1)
    save_model_folder(folder / "model", yaml, built["embedding_model"], built["classifier"], LABELS)
    rng, time = np.random.default_rng(0), np.arange(8000) / 16000
    rows = []
    for number in range(24):
        tone = np.sin(2 * np.pi * (300, 1500, 5000)[number % 3] * time * rng.uniform(0.95, 1.05))
        soundfile.write(folder / f"{number}.wav", 0.2 * tone + rng.normal(0, 0.01, 8000), 16000)
        rows.append((f"{number}.wav", LABELS[number % 3]))
    pd.DataFrame(rows[:9], columns=["path", "emotion"]).to_csv(folder / "ann.csv", index=False)
    (folder / "none.csv").write_text("path,emotion\n")
    return folder, rows


def recognised(model, folder, rows):
    table = predict(load(model, device="cpu"), [folder / path for path, _ in rows])
    return int((table["emotion"] == [emotion for _, emotion in rows]).sum())


def enrolled(folder, labelled, output, model="model"):
    words = ["--labelled", str(folder / labelled), "--output", str(output), "--device", "cpu"]
    main(["enrol", str(folder / model), *words])


def test_the_written_folder_is_a_model_that_knows_the_person(person, tmp_path, capsys):
    folder, rows = person
    enrolled(folder, "ann.csv", tmp_path / "ann")
    printed = capsys.readouterr().out
    assert printed.startswith(f"{tmp_path}/ann: 9 clips; ")
    assert recognised(folder / "model", folder, rows[9:]) == 5  # of 15: by chance
    assert recognised(tmp_path / "ann", folder, rows[9:]) >= 8
    check_model_folder(tmp_path / "ann")
    (training,) = read_lineage(tmp_path / "ann" / "embedding_model.ckpt")
    assert (training.strategy, training.corpus, training.utterances) == ("enrolment", "table", 9)
    assert training.start == str(folder / "model") and training.speakers == ()  # the table names nobody
    assert not tells_speakers(read_lineage(tmp_path / "ann" / "embedding_model.ckpt"), "ravdess")
    enrolled(folder, "ann.csv", tmp_path / "again", model=tmp_path / "ann")  # the lineage grows
    assert len(json.loads((tmp_path / "again" / "lineage.json").read_text())) == 2


def test_no_clip_leaves_the_model_as_it_is(person, tmp_path, caplog, capsys):
    folder, rows = person
    enrolled(folder, "none.csv", tmp_path / "ann")
    assert "has no clip; the classifier stays as it is" in caplog.text
    assert "0 clips; 0 recognised" in capsys.readouterr().out
    paths = [folder / path for path, _ in rows]
    tables = [predict(load(model, device="cpu"), paths)[LABELS] for model in (folder / "model", tmp_path / "ann")]
    np.testing.assert_array_equal(*tables)


def test_a_model_of_speaker_normalisation_is_enrolled_by_the_clips_themselves(tmp_path, tiny_s8):
    shutil.copytree(tiny_s8, tmp_path / "s8")
    (tmp_path / "s8" / "ann.csv").write_text("path,emotion,speaker\nclips/a.wav,happy,ann\nclips/b.wav,sad,ann\n")
    enrolled(tmp_path / "s8", "ann.csv", tmp_path / "ann")
    assert load(tmp_path / "ann", device="cpu").mods.embedding_model.speaker_normalization == "features+embeddings"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("path;emotion\n0.wav;sad\n", "is separated by semicolons"),
        ("path,label\n0.wav,sad\n", "lacks the column.s. emotion; it has path, label"),
        ("path,emotion\n0.wav,glad\n", "the model has no emotion 'glad'; it has neutral, happy, sad"),
        ("path,emotion\ngone.wav,sad\n", "gone.wav is missing; .*leave the clip out"),
        ("path,emotion\n0.wav,sad\n./0.wav,happy\n", "a clip stands twice"),
        ("path,emotion,speaker\n0.wav,sad,ann\n1.wav,sad,bob\n", "2 speakers; enrol one person at a time"),
    ],
)
def test_tables_that_cannot_be_used_are_one_line(person, tmp_path, rows, message):
    folder, _ = person
    (folder / "wrong.csv").write_text(rows)
    with pytest.raises(SystemExit, match=rf"^error: .*{message}") as end:
        enrolled(folder, "wrong.csv", tmp_path / "ann")
    assert "\n" not in str(end.value.code) and not (tmp_path / "ann").exists()


def test_other_wrong_use_is_one_line(person, write_model, tmp_path):
    folder, _ = person
    write_model(tmp_path / "svm", "s5")
    with pytest.raises(SystemExit, match=r"SVMClassifier cannot be adapted"):
        enrolled(folder, "ann.csv", tmp_path / "ann", model=tmp_path / "svm")
    with pytest.raises(SystemExit, match=r"is there already; give another --output"):
        enrolled(folder, "ann.csv", folder)
    with pytest.raises(SystemExit, match=r"gone.csv cannot be read"):
        enrolled(folder, "gone.csv", tmp_path / "ann")
    with pytest.raises(SystemExit, match=r"the model has no classes"):
        words = ["--labelled", str(folder / "ann.csv"), "--output", str(tmp_path / "ann")]
        main(["enrol", "builtin:speakers", *words])


@pytest.mark.parametrize("path", ["", "clips", "clips/*.wav"])
def test_a_row_is_one_sound_file(person, tmp_path, path):
    folder, rows = person
    (tmp_path / "clips").mkdir()
    (tmp_path / "ann.csv").write_text(f"path,emotion\n{folder / rows[0][0]},happy\n{path},sad\n")
    with pytest.raises(SystemExit, match=r"row 2 after the header names .*; give one sound file a row"):
        main(["enrol", str(folder / "model"), "--labelled", str(tmp_path / "ann.csv"), "--output", str(tmp_path / "x")])


def test_an_empty_table_is_refused(person, tmp_path):
    (tmp_path / "ann.csv").touch()
    words = ["--labelled", str(tmp_path / "ann.csv"), "--output", str(tmp_path / "x")]
    with pytest.raises(SystemExit, match=r"ann\.csv is no CSV table with a header"):
        main(["enrol", str(person[0] / "model"), *words])


def test_a_speaker_of_the_table_is_recorded(person, tmp_path):
    folder, rows = person
    table = "".join(f"{folder / path},{emotion},ann\n" for path, emotion in rows[:2])
    (tmp_path / "clips.csv").write_text(f"path,emotion,speaker\n{table}")
    words = ["--labelled", str(tmp_path / "clips.csv"), "--output", str(tmp_path / "ann")]
    main(["enrol", str(folder / "model"), *words])
    lineage = read_lineage(tmp_path / "ann" / "embedding_model.ckpt")
    assert heard_speakers(lineage, "table", ["ann", "bob"]) == {"ann"}
