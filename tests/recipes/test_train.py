"""recipes/train.py as its users run it: five strategies, twice, interrupted, on one's own audio."""

import hashlib
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from speechbrain.inference.classifiers import EncoderClassifier

from ser_plugins import configuration
from ser_plugins.errors import InputError
from ser_plugins.evaluation.figures import read_log
from ser_plugins.model_folder.lineage import read_lineage, speaker_keys
from ser_plugins.model_folder.saving import CHECKPOINT
from ser_plugins.training import EncoderBrain
from ser_plugins.training.cross_validation import missing_folds
from ser_plugins.training.recipe import Recipe

ROOT = Path(__file__).parents[2]
STRATEGIES = ["s1", "s5", *(pytest.param(name, marks=pytest.mark.slow) for name in ("s2", "s3", "s4"))]
EMOTIONS = ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]
FIGURES = {"confusion.png", "confusion.svg"}
OUTPUTS = {"metrics.json", "predictions.csv", "embeddings.npz", "train_log.txt", "hyperparams.yaml", "model", *FIGURES}


def metrics_of(fold: Path) -> dict:
    return json.loads((fold / "metrics.json").read_text())


def predictions_of(fold: Path) -> pd.DataFrame:
    return pd.read_csv(fold / "predictions.csv", dtype={"speaker": str})


def start(arguments: list[str], output: Path) -> subprocess.Popen:
    words = [sys.executable, "recipes/train.py", *arguments]
    with output.open("w") as file:
        return subprocess.Popen(words, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy_leaves_what_it_should(runs, strategy):
    fold = runs(strategy)
    assert {path.name for path in fold.iterdir()} == OUTPUTS
    metrics, table = metrics_of(fold), predictions_of(fold)
    assert (metrics["strategy"], metrics["corpus"], metrics["fold"]) == (strategy.upper(), "synthetic", 1)
    assert metrics["synthetic"] and metrics["labels"] == EMOTIONS
    assert (metrics["n_train"], metrics["n_valid"], metrics["n_test"]) == (16 * 24, 2 * 24, 2 * 24)
    right = [row.emotion == row.predicted for row in table.itertuples()]
    recalls = [np.mean([ok for ok, true in zip(right, table.emotion, strict=True) if true == e]) for e in EMOTIONS]
    assert metrics["accuracy"] == pytest.approx(sum(right) / len(right))
    assert metrics["uar"] == pytest.approx(np.mean(recalls))
    assert np.trace(metrics["confusion"]) == sum(right)
    np.testing.assert_allclose(np.exp(table[EMOTIONS].to_numpy()).sum(1), 1, atol=1e-5)
    assert [EMOTIONS[i] for i in table[EMOTIONS].to_numpy().argmax(1)] == table.predicted.tolist()
    assert all("synthetic" in (fold / name).read_text() for name in ("predictions.csv", "model/hyperparams.yaml"))


@pytest.mark.parametrize("strategy", ["s1", "s5"])
def test_embeddings_of_the_test_part_are_those_of_the_exported_model(runs, audio, tmp_path, strategy):
    fold = runs(strategy)
    kept = np.load(fold / "embeddings.npz")
    assert kept["id"].tolist() == predictions_of(fold).id.tolist() and kept["embedding"].shape == (48, 32)
    model = EncoderClassifier.from_hparams(source=str(fold / "model"), savedir=str(tmp_path))
    for name, embedding in list(zip(kept["id"], kept["embedding"], strict=True))[::11]:
        path = next((audio / "synthetic").rglob(f"{name.removeprefix('synthetic-')}.wav"))
        found = model.encode_batch(model.load_audio(str(path), savedir=str(tmp_path))[None]).squeeze()
        np.testing.assert_allclose(found, embedding, atol=1e-4)


def test_a_run_tells_its_command_and_its_commit(runs):
    metrics = metrics_of(runs("s1"))
    assert metrics["command"] == shlex.join(["python", *sys.argv])
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (metrics["commit"] or "").removesuffix("-dirty") == git.stdout.strip()


def test_no_speaker_of_the_other_parts_is_trained_on(train, tmp_path, monkeypatch):
    original, heard = EncoderBrain.fit_batch, set()

    def fit_batch(brain, batch):
        heard.update(batch.id)
        return original(brain, batch)

    monkeypatch.setattr(EncoderBrain, "fit_batch", fit_batch)
    fold = train("s1", tmp_path / "out", number_of_epochs=1) / "fold1"
    folds = pd.read_csv(fold.parent / "folds.csv", index_col="id")
    assert set(folds.loc[list(heard), "block"]) == set(range(3, 11))
    assert set(predictions_of(fold).speaker) == {"speaker01", "speaker02"} == set(folds.speaker[folds.block == 1])
    digest, name = (fold.parent / "folds.csv.sha256").read_text().split()
    assert name == "folds.csv" and digest == hashlib.sha256((fold.parent / "folds.csv").read_bytes()).hexdigest()


def test_an_encoder_of_the_same_fold_is_fine_tuned(runs, train, tmp_path):
    assert metrics_of(runs("s1"))["pretrained_encoder"] == "none"
    given = runs("s3").parent / "fold{fold}" / "model"
    fold = train("s5", tmp_path / "out", pretrained_encoder=given, number_of_epochs=1) / "fold1"
    metrics = metrics_of(fold)
    assert metrics["pretrained_encoder"] == str(runs("s3") / "model")
    weights = torch.load(fold / "model" / CHECKPOINT, weights_only=True)
    assert metrics["transferred"]["matched"] == len(weights) > 50
    assert not metrics["transferred"]["missing"] + metrics["transferred"]["shape"]
    lineage = read_lineage(fold / "model" / CHECKPOINT)
    assert [(one.strategy, one.fold) for one in lineage] == [("S3", 1), ("S5", 1)]
    assert [one.run_id for one in lineage] == [metrics_of(runs("s3"))["run_id"], metrics["run_id"]]
    assert lineage[0].sha256 == hashlib.sha256((runs("s3") / "model" / CHECKPOINT).read_bytes()).hexdigest()
    folds = pd.read_csv(fold.parent / "folds.csv")
    for keys, blocks in ((lineage[1].valid_speakers, [2]), (lineage[1].speakers, range(3, 11))):
        named = f"{metrics['corpus']}-" + folds["speaker"][folds["block"].isin(blocks)]
        assert set(keys) == set(speaker_keys(named))


@pytest.mark.parametrize(("fold", "blocks"), [(2, [3]), (5, [5, 6]), (10, [10])])
def test_an_encoder_that_heard_the_test_actors_is_refused(runs, train, tmp_path, fold, blocks):
    folds = pd.read_csv(runs("s3").parent / "folds.csv")  # fold 1 trains on blocks 3 to 10
    known = int(folds["block"].isin(blocks).sum())
    with pytest.raises(InputError, match=rf"speakers of {known} utterances .*; give that of the same fold, .*fold{{"):
        train("s3", tmp_path / "out", fold=fold, pretrained_encoder=runs("s3") / "model")
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("strategy", [pytest.param("s1", marks=pytest.mark.slow), "s5"])
def test_exported_model_decides_as_the_run_did_in_a_new_process(runs, audio, tmp_path, strategy):
    fold = runs(strategy)
    table = predictions_of(fold)[::7]
    paths = [str(next((audio / "synthetic").rglob(f"{name.removeprefix('synthetic-')}.wav"))) for name in table.id]
    script = (
        "import json, sys\n"
        "from speechbrain.inference.classifiers import EncoderClassifier\n"
        "model = EncoderClassifier.from_hparams(source=sys.argv[1], savedir=sys.argv[2])\n"
        "out = [model.classify_file(path) for path in sys.argv[3:]]\n"
        "print(json.dumps([[o[0].squeeze().tolist(), o[3]] for o in out]))\n"
    )
    words = [sys.executable, "-c", script, str(fold / "model"), str(tmp_path / "fetched"), *paths]
    answer = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    found = json.loads(answer.strip().splitlines()[-1])
    scores = np.array([np.ravel(scores) for scores, _ in found])
    np.testing.assert_allclose(scores, table[EMOTIONS].to_numpy(), atol=1e-5)
    assert [np.ravel(label)[0] for _, label in found] == table.predicted.tolist()


@pytest.mark.parametrize("strategy", ["s3", "s5"])
def test_exported_model_takes_batches_of_mixed_length(runs, tmp_path, strategy):
    model = EncoderClassifier.from_hparams(source=str(runs(strategy) / "model"), savedir=str(tmp_path))
    generator = torch.Generator().manual_seed(0)
    clips = [0.1 * torch.randn(n, generator=generator) for n in (4000, 16000, 9999)]
    batch = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    lengths = torch.tensor([len(clip) / 16000 for clip in clips])
    together, together_embedded = model.classify_batch(batch, lengths), model.encode_batch(batch, lengths)
    rounding = 1e-5 * float(together_embedded.abs().max())
    for i, clip in enumerate(clips):
        alone = model.classify_batch(clip[None])
        torch.testing.assert_close(together[0][i], alone[0][0], atol=1e-5, rtol=0)
        torch.testing.assert_close(together_embedded[i], model.encode_batch(clip[None])[0], atol=rounding, rtol=0)
        assert np.ravel(together[3])[i] == np.ravel(alone[3])[0]


def test_a_finished_folder_is_left_alone_and_says_so(runs, train, caplog):
    fold = runs("s1")
    before = {path: path.stat().st_mtime_ns for path in fold.rglob("*")}
    with caplog.at_level("INFO"):
        train("s1", fold.parent)
    assert "is finished" in caplog.text and "delete it" in caplog.text and "was not read" not in caplog.text
    assert {path: path.stat().st_mtime_ns for path in fold.rglob("*")} == before


def test_other_data_for_a_finished_table_are_not_passed_over_in_silence(tmp_path, caplog):
    """A finished run reads no corpus: the two tables need not even exist."""
    out, words = tmp_path / "out", ["s1", "--corpus", "table", "--output_folder", str(tmp_path / "out")]
    before, now = (Recipe.from_arguments([*words, "--data_folder", name]) for name in ("a.csv", "b.csv"))
    (out / "fold1").mkdir(parents=True)
    (out / "fold1" / "hyperparams.yaml").write_text(
        configuration.dump(configuration.resolve({**before.tree, "fold": 1}))
    )
    (out / "fold1" / "metrics.json").write_text("{}")
    assert missing_folds(before, out) == [] and "was not read" not in caplog.text
    assert missing_folds(now, out) == [] and "--data_folder a.csv; the one given now was not read" in caplog.text


@pytest.mark.parametrize("finished", [True, False])
def test_other_hyper_parameters_do_not_continue_a_run(runs, train, tmp_path, finished):
    fold = shutil.copytree(runs("s1").parent, tmp_path / "run") / "fold1"
    before = (fold / "hyperparams.yaml").read_text()
    if not finished:
        (fold / "metrics.json").unlink()
        (fold / "save" / "CKPT+1").mkdir(parents=True)
    with pytest.raises(InputError, match=r"holds a run of other hyper-parameters \(lr differs\)"):
        train("s1", fold.parent, lr=0.01)
    assert (fold / "hyperparams.yaml").read_text() == before


def test_a_run_may_be_finished_from_other_folders(runs, train, tmp_path):
    (tmp_path / "again").symlink_to(runs("s1").parent)
    train("s1", tmp_path / "again", cache_folder=tmp_path)


def test_a_fold_that_another_process_finished_meanwhile_is_left_alone(runs, train_recipe, arguments, monkeypatch):
    folder = runs("s1")
    monkeypatch.setitem(train_recipe.__globals__, "missing_folds", lambda *_: [1])  # as it was at the start
    monkeypatch.setitem(train_recipe.__globals__, "begin", lambda *_: pytest.fail("trained again"))
    assert train_recipe(Recipe.from_arguments(arguments("s1", folder.parent))) == folder.parent


def test_what_cannot_be_built_leaves_no_run_behind(train, tmp_path):
    with pytest.raises(InputError, match="cannot be built"):
        train("s1", tmp_path / "out", channels="[4, 8]")
    assert not (tmp_path / "out" / "fold1").exists()


def test_folds_of_another_division_are_not_mixed_in(runs, train):
    before = (runs("s1").parent / "folds.csv").read_bytes()
    with pytest.raises(InputError, match="holds folds of other utterances, or divided otherwise; delete it, or give"):
        train("s1", runs("s1").parent, fold=2, n_folds=5)
    assert (runs("s1").parent / "folds.csv").read_bytes() == before


def test_an_encoder_of_other_features_is_refused(runs, train, tmp_path, caplog):
    folder = runs("s3") / "model"
    with pytest.raises(InputError, match=r"was trained with compute_features .*, and this run has"):
        train("s3", tmp_path / "out", pretrained_encoder=folder, log_magnitude=False)
    fold = train("s3", tmp_path / "out", pretrained_encoder=folder, norm_axis="bin", number_of_epochs=1) / "fold1"
    assert metrics_of(fold)["transferred"]["shape"] == 0
    assert "was trained with mean_var_norm" in caplog.text


@pytest.mark.slow
def test_killed_in_the_middle_of_an_epoch_it_resumes(arguments, tmp_path):
    words = arguments("s1", tmp_path, number_of_epochs=3, ema_decay=0.9, ckpt_interval_minutes=0, ckpt_interval_steps=5)
    log = tmp_path / "fold1" / "train_log.txt"
    first = start(words, tmp_path / "first")
    deadline = time.monotonic() + 300
    while not log.is_file() and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.05)
    time.sleep(0.5)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert not (tmp_path / "fold1" / "metrics.json").exists()
    second = start(words, tmp_path / "second")
    assert second.wait(timeout=600) == 0
    out = (tmp_path / "second").read_text()
    curve = read_log(log)  # an epoch twice where the kill comes between its line and its checkpoint
    assert list(curve["epoch"]) == [1, 2, 3]
    metrics = metrics_of(tmp_path / "fold1")
    best = curve["valid accuracy"].max()
    assert metrics["epochs"] == 3 and metrics["valid_accuracy"] == pytest.approx(best, abs=6e-3)
    assert f"results: {tmp_path}" in out and "synthetic" in out


STEPS = 12  # an epoch on the built-in corpus
AUGMENTER = "!new:speechbrain.augment.augmenter.Augmenter\n  augmentations:\n    - !new:speechbrain.augment.{}"
AUGMENTED = {
    "wav_augment": AUGMENTER.format("time_domain.SpeedPerturb\n        orig_freq: 16000"),
    "feat_augment": AUGMENTER.format("freq_domain.SpectrogramDrop\n        replace: mean"),
}


@pytest.mark.parametrize(
    "strategy, step, changes",
    [
        pytest.param("s5", STEPS + 5, AUGMENTED, id="in an epoch"),
        pytest.param(
            "s5", STEPS + 5, {"ckpt_interval_steps": 0}, id="after an epoch's checkpoint", marks=pytest.mark.slow
        ),
        pytest.param("s8", STEPS + 5, AUGMENTED, id="centred", marks=pytest.mark.slow),
        pytest.param("s1", STEPS + 5, {}, id="not augmented", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_ends_as_one_that_was_not(train, run_killed, tmp_path, strategy, step, changes):
    whole = train(strategy, tmp_path / "whole", **changes) / "fold1"
    resumed = run_killed(train, step, strategy, tmp_path / "killed", **changes) / "fold1"
    weights, again = (torch.load(fold / "model/embedding_model.ckpt", weights_only=True) for fold in (whole, resumed))
    for name, weight in weights.items():
        torch.testing.assert_close(again[name], weight, rtol=0, atol=0, msg=name)
    assert predictions_of(resumed).equals(predictions_of(whole))


def test_all_folds_runs_what_is_missing_and_summarises(train, table, tmp_path):
    own = {"corpus": "table", "data_folder": tmp_path / "own.csv", "n_folds": 3, "batch_size": 8}
    output = train("s1", tmp_path / "out", fold="all", **own)
    summary = json.loads((output / "summary.json").read_text())
    accuracies = [metrics_of(output / f"fold{fold}")["accuracy"] for fold in (1, 2, 3)]
    assert summary["accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
    assert summary["accuracy"]["std"] == pytest.approx(np.std(accuracies, ddof=1))
    assert (summary["accuracy"]["min"], summary["accuracy"]["max"]) == (min(accuracies), max(accuracies))
    assert "synthetic" not in (output / "summary.md").read_text()
    tested = pd.concat(predictions_of(output / f"fold{fold}") for fold in (1, 2, 3))
    assert sorted(tested.id) == sorted(path.removesuffix(".wav") for path in table.path)

    kept = (output / "fold1" / "metrics.json").stat().st_mtime_ns
    (output / "fold2" / "metrics.json").unlink()
    train("s1", output, fold="all", **own)
    assert (output / "fold2" / "metrics.json").is_file()
    assert (output / "fold1" / "metrics.json").stat().st_mtime_ns == kept


def test_a_fold_that_was_begun_keeps_its_division(train, table, tmp_path):
    own = {"corpus": "table", "data_folder": tmp_path / "own.csv", "n_folds": 3}
    with pytest.raises(InputError, match="as n_bins says"):
        train("s1", tmp_path / "out", compute_features=None, n_bins=80, **own)
    divided = (tmp_path / "out" / "folds.csv").read_bytes()
    table.assign(speaker=table["speaker"].replace({"01": "07"})).to_csv(tmp_path / "own.csv", index=False)
    with pytest.raises(InputError, match="as n_bins says"):  # without a checkpoint, it may be replaced
        train("s1", tmp_path / "out", compute_features=None, n_bins=80, **own)
    assert (tmp_path / "out" / "folds.csv").read_bytes() != divided
    (tmp_path / "out" / "folds.csv").write_bytes(divided)
    (tmp_path / "out" / "fold1" / "save" / "CKPT+1").mkdir(parents=True)
    with pytest.raises(InputError, match="holds folds of other utterances, or divided otherwise"):
        train("s1", tmp_path / "out", **own)


def test_own_labels_train_with_the_emotion_constraint(train, table, tmp_path):
    table.replace({"emotion": {"happy": "content", "sad": "gloomy"}}).to_csv(tmp_path / "own.csv", index=False)
    own = {"corpus": "table", "data_folder": tmp_path / "own.csv", "n_folds": 3, "pretrained_encoder": "none"}
    with pytest.raises(ValueError, match=r"content.*polarity"):
        train("s5", tmp_path / "a", **own)
    output = train("s5", tmp_path / "b", **own, polarity="{content: positive, gloomy: negative}")
    assert metrics_of(output / "fold1")["labels"] == ["content", "gloomy"]


def test_any_kind_of_audio_is_taken(train, table, tmp_path):
    kinds = [(8000, 1, "PCM_16"), (96000, 2, "PCM_24"), (44100, 6, "FLOAT"), (48000, 1, "DOUBLE")]
    for path, (rate, channels, subtype) in zip(table.path, kinds, strict=False):
        noise = np.random.default_rng(0).normal(0, 0.1, (rate, channels))
        soundfile.write(tmp_path / path, noise, rate, subtype=subtype)
    own = {"corpus": "table", "data_folder": tmp_path / "own.csv", "n_folds": 3}
    output = train("s1", tmp_path / "out", **own)
    assert np.isfinite(predictions_of(output / "fold1")[["happy", "sad"]].to_numpy()).all()
