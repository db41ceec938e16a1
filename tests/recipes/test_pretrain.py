"""Pre-training on a miniature of VoxCeleb2's tree, with real AAC files: killed, resumed, used."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.inference.classifiers import EncoderClassifier

from ser_plugins.errors import InputError
from ser_plugins.training.recipe import Recipe
from ser_plugins.training.speakers import SpeakerBrain
from ser_plugins.training.transfer import transfer

HPARAMS = Path(__file__).parents[2] / "hparams"
TINY = {"channels": "[4, 4, 8, 8]", "descriptor_size": 8, "embedding_size": 16, "crop_seconds": 0.3, "vad": "none"}
SHORT = {"number_of_epochs": 2, "batch_size": 8, "shard_size": 16, "valid_speakers": 2, **TINY}
SPEAKERS, TAKES = 7, 6


@pytest.fixture(scope="module")
def voxceleb2(tmp_path_factory, write_aac):
    """Seven speakers, each a tone of its own in noise, in two videos."""
    root, rng = tmp_path_factory.mktemp("vox2"), np.random.default_rng(0)
    for speaker in range(SPEAKERS):
        for take in range(TAKES):
            time = np.arange(rng.integers(6000, 12000)) / 16000
            tone = 0.3 * np.sin(2 * np.pi * 300 * 1.4**speaker * time) + 0.05 * rng.normal(size=len(time))
            write_aac(root / "dev" / "aac" / f"id0{speaker}" / f"video{take % 2}" / f"{take:05d}.m4a", tone)
    return root


@pytest.fixture(scope="module")
def arguments(voxceleb2, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")

    def make(output, name="pretrain", **changes):
        folders = {"data_folder": voxceleb2, "cache_folder": cache, "output_folder": output}
        keys = {"corpus": "voxceleb2", **folders, **SHORT, **changes}
        given = {key: value for key, value in keys.items() if value is not None}
        return [str(HPARAMS / f"{name}.yaml"), *(part for k, v in given.items() for part in (f"--{k}", str(v)))]

    return make


@pytest.fixture(scope="module")
def run(arguments, pretrain):
    return lambda output, *name, **changes: pretrain.run(Recipe.from_arguments(arguments(output, *name, **changes)))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Recorded noise and rooms, listed as SpeechBrain's augmentations read them."""
    folder, rng = tmp_path_factory.mktemp("recordings"), np.random.default_rng(1)
    for kind in ("noise", "rir"):
        lines = ["ID,duration,wav,wav_format,wav_opts"]
        for number in range(20):
            path = folder / f"{kind}{number}.wav"
            soundfile.write(path, rng.normal(size=4000) * np.exp(-np.arange(4000) / 300), 16000)
            lines.append(f"{number},0.25,{path},wav,")
        (folder / f"{kind}.csv").write_text("\n".join(lines) + "\n")
    return {"noise_csv": folder / "noise.csv", "rir_csv": folder / "rir.csv"}


@pytest.fixture(scope="module")
def finished(run, tmp_path_factory):
    return run(tmp_path_factory.mktemp("pretrain") / "run")


def weights(folder):
    return torch.load(folder / "encoder" / "embedding_model.ckpt", weights_only=True)


def test_a_run_leaves_an_encoder_and_what_it_is_worth(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert (metrics["corpus"], metrics["speakers"], metrics["synthetic"]) == ("voxceleb2", SPEAKERS - 2, False)
    assert (metrics["n_train"], metrics["n_valid"], metrics["n_trials"]) == ((SPEAKERS - 2) * (TAKES - 1), 5, 2 * TAKES)
    assert metrics["trials"] == 2 * (TAKES * (TAKES - 1) // 2) + TAKES**2
    assert 0 <= metrics["eer"] <= 1 and 0 <= metrics["accuracy"] <= 1 and metrics["epochs"] == 2
    assert {path.name for path in finished.iterdir()} == {
        *("encoder", "metrics.json", "curve.png", "curve.svg", "train_log.txt", "hyperparams.yaml"),
        "utterances.sha256",
    }


def test_the_encoder_is_a_model_folder_of_speakers(finished, tmp_path):
    model = EncoderClassifier.from_hparams(source=str(finished / "encoder"), savedir=str(tmp_path))
    scores, _, _, texts = model.classify_batch(torch.randn(2, 8000))
    assert scores.shape == (2, SPEAKERS - 2) and all(text.startswith("id0") for text in texts)


def test_a_second_run_trains_nothing(finished, run, caplog, monkeypatch):
    monkeypatch.setattr(SpeakerBrain, "fit", None)
    with caplog.at_level("INFO"):
        assert run(finished) == finished
    assert "is finished" in caplog.text
    with pytest.raises(InputError, match=r"holds a run of other hyper-parameters \(lr differs\)"):
        run(finished, lr=0.5)


def test_without_pairs_nothing_is_packed(run, tmp_path):
    with pytest.raises(InputError, match="--valid_speakers 0 leaves no pairs to validate on; give 2 or more, or"):
        run(tmp_path / "out", valid_speakers=0, cache_folder=tmp_path / "cache")
    assert not list(tmp_path.rglob("*.tar"))


@pytest.mark.parametrize("step", [pytest.param(3, marks=pytest.mark.slow), 6])
def test_a_killed_run_ends_as_one_that_was_not(finished, run, run_killed, tmp_path, step):
    resumed = weights(run_killed(run, step, tmp_path / "run"))
    for name, weight in weights(finished).items():
        torch.testing.assert_close(resumed[name], weight, rtol=0, atol=0, msg=name)


@pytest.mark.slow
def test_so_does_one_with_recorded_noise_and_rooms(run, run_killed, recordings, tmp_path):
    recorded = run(tmp_path / "whole", "pretrain_rooms", **recordings)
    whole = weights(recorded)
    resumed = weights(run_killed(run, 2, tmp_path / "killed", "pretrain_rooms", **recordings))
    white = run(tmp_path / "white", "pretrain_rooms", rir_csv=recordings["rir_csv"])
    for name, weight in whole.items():
        torch.testing.assert_close(resumed[name], weight, rtol=0, atol=0, msg=name)
    assert (white / "train_log.txt").read_text() != (recorded / "train_log.txt").read_text()


@pytest.mark.slow
def test_margin_and_ghosts_are_a_line_each(run, arguments, pretrain, tmp_path):
    own = tmp_path / "margin.yaml"
    own.write_text(
        "extends: pretrain.yaml\nstrategy: margin\nghost_clusters: 0\nclassifier: !new:ser_plugins.MarginClassifier\n"
        "    input_size: !ref <embedding_size>\n    n_classes: !ref <n_classes>\n"
    )
    _, *rest = arguments(tmp_path / "run", number_of_epochs=1)
    folder = pretrain.run(Recipe.from_arguments([str(own), *rest]))
    assert weights(folder)["pooling.assignment.weight"].shape[0] == 8


def test_a_list_of_trials_takes_the_place_of_held_out_speakers(run, voxceleb2, tmp_path):
    trials = tmp_path / "veri.txt"
    names = ["id00/video0/00000.m4a", "id00/video0/00002.m4a", "id03/video1/00003.m4a"]
    trials.write_text(f"1 {names[0]} {names[1]}\n0 {names[0]} {names[2]}\n")
    folder = run(tmp_path / "run", trials_file=trials, shards_folder=tmp_path / "shards", number_of_epochs=1)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["speakers"], metrics["n_trials"], metrics["trials"]) == (SPEAKERS, 3, 2)


@pytest.mark.slow
def test_all_seeds_take_the_same_shards(run, finished, tmp_path):
    folder = run(tmp_path / "run", seed=2, number_of_epochs=1)
    first, second = (json.loads((one / "metrics.json").read_text()) for one in (finished, folder))
    assert first["shards_sha256"] == second["shards_sha256"]
    assert not torch.equal(weights(finished)["embedding.weight"], weights(folder)["embedding.weight"])


@pytest.mark.parametrize("change", ["features", "features+embeddings"])
def test_speaker_normalisation_is_refused(run, tmp_path, change):
    with pytest.raises(InputError, match="speaker normalisation removes what identifies a speaker"):
        run(tmp_path / "run", speaker_normalization=change)


def test_shards_are_enough_without_the_corpus(run, finished, arguments, pretrain, tmp_path, caplog):
    words = arguments(tmp_path / "run", number_of_epochs=1)
    where = words.index("--data_folder")
    words = words[:where] + words[where + 2 :]
    folder = pretrain.run(Recipe.from_arguments(words))
    assert (folder / "encoder").is_dir()
    assert "has the pairs that it was packed with; without effect: --valid_speakers" in caplog.text
    words[words.index("--output_folder") + 1] = str(tmp_path / "other")
    recipe = Recipe.from_arguments(words)
    with pytest.raises(InputError, match="made with another vad; give the corpus' folder to pack it again"):
        pretrain.run(replace(recipe, tree={**recipe.tree, "vad": "webrtc"}))


def test_added_ghosts_keep_their_initial_values(finished, caplog):
    recipe_weights = weights(finished)
    from ser_plugins import GhostVLAD, SEResNet34, UtteranceEncoder

    encoder = UtteranceEncoder(SEResNet34([4, 4, 8, 8]), GhostVLAD(8, 8, 4), 16)
    with caplog.at_level("INFO"):
        report = transfer(encoder, str(finished / "encoder"))
    assert report["partial"] == ["pooling.assignment.weight", "pooling.assignment.bias"]
    assert "ghost clusters, which keep their initial values" in caplog.text
    torch.testing.assert_close(encoder.pooling.assignment.weight[:10], recipe_weights["pooling.assignment.weight"])


@pytest.mark.slow
def test_filters_learned_by_reconstruction_are_those_of_the_classified_features(run, train_recipe, table, tmp_path):
    filters = {"n_bins": 20, "codes": 12, "patch_width": 4}
    network = dict.fromkeys(("channels", "descriptor_size", "embedding_size"))
    folder = run(tmp_path / "run", "mao_pretrain", **network, **filters)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["n_train"], metrics["n_valid"]) == ((SPEAKERS - 2) * TAKES, 0)
    assert 0 < metrics["reconstruction_error"] < 2 and "eer" not in metrics
    learned = weights(folder)
    assert set(learned) == {"backbone.filters.weight", "backbone.filters.bias"}

    folders = {"data_folder": tmp_path / "own.csv", "cache_folder": tmp_path, "output_folder": tmp_path / "out"}
    keys = {
        "corpus": "table",
        "n_folds": 3,
        "vad": "none",
        "pretrained_encoder": folder / "encoder",
        **folders,
        **filters,
    }
    words = [str(HPARAMS / "mao.yaml"), *(part for k, v in keys.items() for part in (f"--{k}", str(v)))]
    fold = train_recipe(Recipe.from_arguments(words))
    used = torch.load(fold / "fold1" / "model" / "embedding_model.ckpt", weights_only=True)
    for name, weight in learned.items():
        torch.testing.assert_close(used[name], weight, rtol=0, atol=0)


def test_a_corpus_without_emotions_is_refused(arguments, train_recipe, tmp_path):
    words = [str(HPARAMS / "s1.yaml"), *arguments(tmp_path / "run")[1:7]]
    with pytest.raises(InputError, match="voxceleb2 has no emotions: give it to"):
        train_recipe(Recipe.from_arguments(words))
