"""Bad input: one clear line that names the thing and the remedy, exit status not 0, nothing half-written left."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ser_plugins.errors import InputError
from ser_plugins.training.recipe import Recipe

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"corpus": "ravdes"}, r"unknown corpus 'ravdes'; the corpora are .*ravdess"),
        ({"corpus": "ravdess", "data_folder": None}, r"corpus ravdess needs --data_folder"),
        ({"corpus": "ravdess", "data_folder": "nowhere"}, r"no folder nowhere; check --data_folder"),
        ({"corpus": "ravdess", "data_folder": "{tmp}"}, r"none of its 1440 files .*; check --data_folder"),
        ({"corpus": "table", "data_folder": "{tmp}/none.csv"}, r"no table .*none.csv; check --data_folder"),
        ({"fold": 11}, r"no fold 11; give a number from 1 to 10, or all"),
        ({"output_folder": "lr=0.1"}, r"lr=0.1: the command line takes no equals sign in a value"),
        ({"output_folder": "out #2"}, r"out #2: what follows ' #' is a comment in YAML; give another name"),
        ({"output_folder": "2024"}, r"--output_folder 2024: YAML reads this as no text; write ./ before it"),
        ({"output_folder": "a: b"}, r"a value of the command line is not valid YAML, or a key is given twice: mapping"),
        ({"pretrained_encoder": "2024"}, r"--pretrained_encoder 2024: YAML reads this as no text; write ./ before it"),
        ({"pretrained_encoder": "nowhere"}, r"no model at nowhere"),
        ({"n_folds": "ten"}, r"--n_folds ten: give a whole number"),
        ({"fold": "first"}, r"--fold first: give a number"),
        ({"seed": -1}, r"seed must be a whole number from 0 to 4294967295, got -1"),
        ({"seed": 2**32}, r"seed must be a whole number from 0 to 4294967295, got 4294967296"),
        ({"prec": "bf16"}, r"--prec: give the whole name of the option, --precision"),
        ({"crop_seconds": 0}, r"crop_seconds: 0 is no length; give seconds above 0, or null"),
        ({"labels": "[happy, sad]"}, r"--labels: the corpus sets it; leave it out"),
        (
            {"n_bins": 80, "compute_features": None},
            r"features must be \[batch, frames, 80\], as n_bins says, not \[32, .*, 257\]",
        ),
        ({"number_of_epoch": 3}, r"unknown key 'number_of_epoch'; did you mean number_of_epochs"),
        ({"alpha": 0.2}, r"command line: unknown key 'alpha'"),
        ({"dropped_bins": 4}, r"command line: unknown key 'dropped_bins'"),
        ({"vad": "sillero"}, r"vad must be one of silero"),
        ({"mixup": -1}, r"alpha of mixup must be above 0, got -1"),
        (
            {"mixup": 0.2, "speaker_normalization": "features+embeddings"},
            r"mixup mixes speakers, .*; give --mixup null",
        ),
        ({"ema_decay": 2}, r"decay of the weights' average must be in \[0, 1\), got 2"),
        ({"lr_schedule": "cosine"}, r"lr_schedule: 'cosine' is no schedule; give !new:"),
        ({"channels": "[4, 8]"}, r"cannot be built|channels"),
        ({"metric_loss": "!new:ser_plugins.TripletLos {}"}, r"ser_plugins has no TripletLos, but TripletLoss; correct"),
        (
            {"metric_loss": "!new:nowhere.Loss {}"},
            r"cannot import nowhere \(No module .*\); run in the folder",
        ),
        ({"number_of_epochs": 0}, r"number_of_epochs must be a whole number above 0, got 0|epochs must be"),
        ({"patience": -1}, r"patience must be a whole number above 0, got -1"),
        ({"lr": "high"}, r"lr must be a number of at least 0, got 'high'"),
        ({"batch_size": 2.5}, r"batch_size must be a whole number above 0, got 2.5"),
        ({"device": "gpu"}, r"there is no device gpu; give cpu, or none"),
    ],
)
def test_wrong_arguments(train, tmp_path, changes, says):
    changes = {key: value and str(value).replace("{tmp}", str(tmp_path)) for key, value in changes.items()}
    with pytest.raises(InputError, match=says) as caught:
        train("s1", tmp_path / "out", **changes)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("metrics.json"))


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("extra", r"out is a whole value; where one has spaces, put it in quotes: leave extra out"),
        ("--debug true", r"--debug takes no value: leave true out"),
    ],
)
def test_a_word_that_is_no_option_is_refused(arguments, tmp_path, word, says):
    words = [*arguments("s1", tmp_path / "out"), "--output_folder", "out", *word.split(), "--seed", "2"]
    with pytest.raises(InputError, match=says):
        Recipe.from_arguments(words)
    several = ["--compile_module_keys", "embedding_model", "classifier", "--debug", "--seed=3"]
    recipe = Recipe.from_arguments([*arguments("s1", tmp_path / "out"), *several])
    assert recipe.options["compile_module_keys"] == several[1:3] and recipe.tree["seed"] == 3


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("pretrain", r"not for this recipe; give it to recipes/pretrain.py"),
        ("emotion", r"emotion.yaml is no strategy; give one of hparams/"),
    ],
)
def test_other_yamls_are_refused(train, tmp_path, name, says):
    with pytest.raises(InputError, match=says):
        train(name, tmp_path / "out")


def test_a_run_that_came_to_nothing_is_begun_anew(train, tmp_path):
    with pytest.raises(InputError, match="as n_bins says"):
        train("s1", tmp_path / "out", compute_features=None, n_bins=80, number_of_epochs=1)
    folder = train("s1", tmp_path / "out", number_of_epochs=1)
    assert (folder / "fold1" / "metrics.json").is_file()


def test_run_options_that_change_the_training_are_hyper_parameters(runs, arguments, train_recipe):
    words = arguments("s1", runs("s1").parent)
    for option in (["--max_grad_norm", "0.1"], ["--precision", "bf16"], ["--debug"]):
        with pytest.raises(InputError, match=rf"holds a run of other hyper-parameters \({option[0][2:]} differs\)"):
            train_recipe(Recipe.from_arguments([*words, *option]))


def test_a_run_for_debugging_ends_after_two_epochs(arguments, tmp_path, train_recipe):
    words = [*arguments("s1", tmp_path / "out", number_of_epochs=9), "--debug"]
    fold = train_recipe(Recipe.from_arguments(words)) / "fold1"
    assert json.loads((fold / "metrics.json").read_text())["epochs"] == 2
    assert not list(fold.rglob("CKPT+*"))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.write_text("no sound"), "not readable as audio"),
        (lambda path: path.write_bytes(b""), "not readable as audio"),
        (lambda path: path.unlink(), "is missing; copy it again"),
        (lambda path: path.write_bytes(path.read_bytes()[:30]), "not readable as audio|no samples"),
        (lambda path: soundfile.write(path, np.zeros(0), 16000), "no samples"),
        (lambda path: soundfile.write(path, np.zeros(160), 16000), "0.010 s of audio is too short; give 0.1 s or more"),
        (lambda path: soundfile.write(path, np.full(16000, np.nan), 16000, subtype="FLOAT"), "NaN"),
    ],
)
def test_a_spoilt_file_is_named(train, table, tmp_path, spoil, says):
    spoil(tmp_path / table.path[5])
    with pytest.raises(InputError, match=says) as caught:
        train("s1", tmp_path / "out", corpus="table", data_folder=tmp_path / "own.csv", n_folds=3)
    assert table.path[5] in str(caught.value) and "\n" not in str(caught.value)


def test_tables_that_cannot_be_divided_or_understood(train, table, tmp_path):
    own = {"corpus": "table", "data_folder": tmp_path / "own.csv", "n_folds": 3}
    with pytest.raises(InputError, match="unknown emotion 'sad'; known: happy"):
        train("s1", tmp_path / "out", **own, emotions="[happy]")
    first = table["speaker"] == table["speaker"].min()  # the first block's, which fold 1 tests on
    table.assign(emotion=table["emotion"].mask(first, "zeal")).to_csv(tmp_path / "own.csv", index=False)
    with pytest.raises(InputError, match="corpus table, fold 1: no training speaker has an utterance of zeal; leave"):
        train("s1", tmp_path / "out", **own)
    table.assign(speaker="one").to_csv(tmp_path / "own.csv", index=False)
    with pytest.raises(InputError, match=r"1 speaker\(s\), too few for 3 folds"):
        train("s1", tmp_path / "out", **own)
    table.drop(columns="speaker").to_csv(tmp_path / "own.csv", index=False)
    with pytest.raises(InputError, match=r"lacks the column\(s\) speaker"):
        train("s1", tmp_path / "out", **own)


def test_a_full_disk_is_told_and_the_run_resumes_later(train, table, tmp_path, monkeypatch):
    own = {"corpus": "table", "data_folder": tmp_path / "own.csv", "n_folds": 3}

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")

    with monkeypatch.context() as disk:
        disk.setattr(torch, "save", full)
        with pytest.raises(InputError, match=r"no space left at .*run the same command again"):
            train("s1", tmp_path / "out", **own)
    assert not list(tmp_path.rglob("metrics.json"))
    assert (train("s1", tmp_path / "out", **own) / "fold1" / "metrics.json").is_file()


def test_the_command_line_ends_in_one_line_and_an_error_status(tmp_path):
    words = [sys.executable, "recipes/train.py", "hparams/none.yaml", "--output_folder", str(tmp_path / "out")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: cannot read hparams/none.yaml")
