"""Distillation on seven speakers: killed, resumed, exported, used."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ser_plugins import GhostVLAD, SEResNet34, UtteranceEncoder, load
from ser_plugins.errors import InputError
from ser_plugins.inference.batches import select_labels
from ser_plugins.model_folder.lineage import Training, file_sha256, read_lineage, write_lineage
from ser_plugins.training.recipe import Recipe
from ser_plugins.training.teacher import TeacherFolder
from ser_plugins.training.transfer import transfer

from .conftest import load_recipe

pytestmark = pytest.mark.slow
HPARAMS = Path(__file__).parents[2] / "hparams"
SPEAKERS, TAKES = 7, 5
YAML = f"""extends: {HPARAMS}/distil.yaml
strategy: distil_tiny
teacher_features: !new:ser_plugins.Spectrogram
teacher_norm: !new:ser_plugins.SpectrogramNorm
teacher_backbone: !new:ser_plugins.SEResNet34
    channels: [4, 4, 4, 6]
    blocks: [1, 1, 1, 1]
teacher_speaker: null
"""
TINY = {
    "channels": "[4, 4, 8, 8]",
    "descriptor_size": 8,
    "embedding_size": 16,
    "crop_seconds": 0.4,
    "vad": "none",
    "valid_speakers": 2,
}
SHORT = {"number_of_epochs": 2, "batch_size": 8, "shard_size": 16, **TINY}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Seven speakers, each a tone of its own in noise, in two folders."""
    root, rng = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0)
    for speaker in range(SPEAKERS):
        for take in range(TAKES):
            path = root / ("one" if speaker < 4 else "two") / f"s{speaker % 4}" / f"{take}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            time = np.arange(rng.integers(6000, 12000)) / 16000
            tone = 0.3 * np.sin(2 * np.pi * 300 * 1.4**speaker * time)
            soundfile.write(path, tone + 0.05 * rng.normal(size=len(time)), 16000)
    return root


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A folder as recipes/convert.py writes it, of a tiny network of random weights."""
    folder = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(0)
    state = SEResNet34([4, 4, 4, 6], [1, 1, 1, 1]).state_dict()
    torch.save({f"backbone.{name}": weight for name, weight in state.items()}, folder / "embedding_model.ckpt")
    sha256 = file_sha256(folder / "embedding_model.ckpt")
    write_lineage(folder, [Training("published", "weights of a paper", "speech", None, 0, sha256)])
    return folder


@pytest.fixture(scope="module")
def run(corpus, teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("distil")
    (folder / "tiny.yaml").write_text(YAML)
    distil = load_recipe("distil")

    def make(output, **changes):
        places = {"data_folder": f"[{corpus / 'one'}, {corpus / 'two'}]", "cache_folder": folder / "cache"}
        keys = {"corpus": "speakers", "teacher": teacher, **places, "output_folder": output, **SHORT, **changes}
        words = [part for key, value in keys.items() for part in (f"--{key}", str(value))]
        return distil.run(Recipe.from_arguments([str(folder / "tiny.yaml"), *words]))

    return make


@pytest.fixture(scope="module")
def finished(run, tmp_path_factory):
    return run(tmp_path_factory.mktemp("finished") / "run")


def weights(folder):
    return torch.load(folder / "encoder" / "embedding_model.ckpt", weights_only=True)


def test_a_run_leaves_an_encoder_and_what_it_is_worth(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert (metrics["strategy"], metrics["teacher"]) == ("distil_tiny", "weights of a paper")
    counts = (metrics["speakers"], metrics["n_train"], metrics["n_trials"])
    assert counts == (SPEAKERS - 2, (SPEAKERS - 2) * TAKES, 2 * TAKES)
    assert 0 <= metrics["eer"] <= 1 and -1 <= metrics["cosine"] <= 1 and metrics["frame_error"] > 0
    assert {path.name for path in finished.iterdir()} == {
        *("encoder", "metrics.json", "curve.png", "curve.svg", "train_log.txt", "hyperparams.yaml"),
        "utterances.sha256",
    }
    log = (finished / "train_log.txt").read_text()
    assert all(f"valid {name}" in log for name in ("loss", "frame_error", "cosine", "eer"))


def test_the_encoder_alone_is_exported_and_is_used(finished):
    encoder = UtteranceEncoder(SEResNet34([4, 4, 8, 8]), GhostVLAD(8, 8, 2), 16)
    report = transfer(encoder, str(finished / "encoder"))
    assert not any(report[kind] for kind in ("partial", "missing", "unexpected", "shape"))
    model = load(finished / "encoder", device="cpu")
    wavs = torch.randn(2, 8000)
    encoder.eval()
    with torch.no_grad():
        expected = encoder(model.mods.mean_var_norm(model.mods.compute_features(wavs), torch.ones(2)))
    torch.testing.assert_close(model.encode_batch(wavs), expected)
    with pytest.raises(InputError, match="the model has no classes"):
        model.classify_batch(wavs)
    with pytest.raises(InputError, match="the model has no classes"):
        select_labels(model, None)


def test_the_lineage_begins_with_the_teacher(finished):
    lineage = read_lineage(finished / "encoder" / "embedding_model.ckpt")
    assert [one.strategy for one in lineage] == ["weights of a paper", "distil_tiny"]
    assert lineage[1].about == "a student of weights of a paper" and len(lineage[1].speakers) == SPEAKERS - 2
    assert lineage[1].utterances == (SPEAKERS - 2) * TAKES


@pytest.mark.parametrize("step", [2, 5])
def test_a_killed_run_ends_as_one_that_was_not(finished, run, run_killed, tmp_path, step, monkeypatch):
    monkeypatch.setattr(TeacherFolder, "write", None)  # the teacher's features are there already
    resumed = weights(run_killed(run, step, tmp_path / "run"))
    for name, weight in weights(finished).items():
        torch.testing.assert_close(resumed[name], weight, rtol=0, atol=0, msg=name)


def test_a_second_run_trains_nothing(finished, run, caplog):
    with caplog.at_level("INFO"):
        assert run(finished) == finished
    assert "is finished" in caplog.text
    with pytest.raises(InputError, match=r"holds a run of other hyper-parameters \(embedding_weight differs\)"):
        run(finished, embedding_weight=0.1)


@pytest.mark.parametrize(
    ("source", "says"), [("encoder", "arrays of SEResNet34, as "), ("nowhere", "nowhere"), ("null", "needs a teacher")]
)
def test_a_wrong_teacher_is_one_line_before_anything_is_packed(finished, run, tmp_path, source, says):
    given = finished / "encoder" if source == "encoder" else source
    with pytest.raises(InputError, match=says) as caught:
        run(tmp_path / "run", teacher=given, cache_folder=tmp_path / "cache")
    assert "\n" not in str(caught.value) and not list(tmp_path.rglob("*.tar"))


def test_the_other_recipes_refuse_it(pretrain, train_recipe, tmp_path):
    words = [str(HPARAMS / "distil.yaml"), "--corpus", "speakers", "--output_folder", str(tmp_path)]
    for recipe, says in ((pretrain.run, "give it to recipes/distil.py"), (train_recipe, "give it to recipes/")):
        with pytest.raises(InputError, match=says):
            recipe(Recipe.from_arguments(words))
    words[0] = str(HPARAMS / "pretrain.yaml")
    with pytest.raises(InputError, match=r"give it to recipes/pretrain.py"):
        load_recipe("distil").run(Recipe.from_arguments(words))
