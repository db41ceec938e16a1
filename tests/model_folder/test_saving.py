"""The model folder, written whole or not at all, and read by SpeechBrain as it is."""

import os
import stat
from pathlib import Path

import pytest
import torch
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.inference.classifiers import EncoderClassifier

from ser_plugins import configuration
from ser_plugins.model_folder import saving
from ser_plugins.model_folder.saving import save_model_folder

LABELS = ["neutral", "no", "it's sad", "sehr fröhlich", "4"]
FILES = [
    "classifier.ckpt",
    "config.json",
    "embedding_model.ckpt",
    "hyperparams.yaml",
    "label_encoder.ckpt",
    "model.safetensors",
    "reference.json",
]


def save(folder, built, yaml):
    save_model_folder(folder, yaml, built["embedding_model"], built["classifier"], LABELS)


@torch.no_grad()
def scores_of(built, wavs):
    feats = built["mean_var_norm"](built["compute_features"](wavs))
    return built["classifier"].eval()(built["embedding_model"].eval()(feats)).squeeze(1)


@pytest.fixture(scope="module", params=["s1", "s3", "s5"])
def exported(request, tmp_path_factory, tiny_model):
    place = tmp_path_factory.mktemp(request.param)
    built, yaml = tiny_model(request.param, labels=LABELS)
    save(place / "model", built, yaml)
    model = EncoderClassifier.from_hparams(source=str(place / "model"), savedir=str(place / "fetched"))
    return built, model, place / "model"


def test_stock_interface_decides_as_the_modules_do(exported):
    built, model, _ = exported
    wavs = torch.randn(12, 8000) * torch.linspace(0.001, 1, 12)[:, None]
    expected = scores_of(built, wavs)
    scores, best, index, texts = model.classify_batch(wavs)
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(scores.exp().sum(-1), torch.ones(12))
    torch.testing.assert_close(best, expected.amax(-1), atol=1e-5, rtol=0)
    assert index.tolist() == expected.argmax(-1).tolist()
    assert texts == [LABELS[i] for i in expected.argmax(-1)]


def test_batches_of_mixed_length_are_their_clips_alone(exported):
    _, model, _ = exported
    clips = [0.1 * torch.randn(n) for n in (16000, 4001, 161, 9999, 12800)]
    batch = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    scores, _, _, texts = model.classify_batch(batch, torch.tensor([len(clip) / 16000 for clip in clips]))
    for row, text, clip in zip(scores, texts, clips, strict=True):
        alone, _, _, (label,) = model.classify_batch(clip[None])
        torch.testing.assert_close(row, alone[0], atol=1e-5, rtol=0)
        assert text == label


def test_each_label_is_written_under_its_index(exported):
    _, model, folder = exported
    assert model.hparams.label_encoder.decode_torch(torch.arange(5)) == LABELS
    encoder = CategoricalEncoder()
    encoder.load(folder / "label_encoder.ckpt")
    assert [encoder.lab2ind[label] for label in LABELS] == list(range(5))


def test_folder_holds_seven_files_without_pickled_code(exported):
    _, _, folder = exported
    assert sorted(os.listdir(folder)) == FILES
    for name in ("embedding_model.ckpt", "classifier.ckpt"):
        weights = torch.load(folder / name, weights_only=True)
        assert all(isinstance(weight, torch.Tensor) for weight in weights.values())
    sections = ["audio_normalizer", "classifier", "compute_features", "embedding_model", "label_encoder"]
    assert sorted(configuration.read(folder / "hyperparams.yaml")) == [
        *sections,
        "mean_var_norm",
        "mean_var_norm_emb",
        "modules",
        "pretrainer",
    ]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_a_folder_is_replaced_with_all_that_it_holds(tmp_path, tiny_model):
    built, yaml = tiny_model("s1", labels=LABELS)
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "stray").write_text("old")
    save(tmp_path / "run" / "model", built, yaml)
    assert sorted(os.listdir(tmp_path / "run" / "model")) == FILES
    assert os.listdir(tmp_path / "run") == ["model"]


@pytest.mark.parametrize("present", [True, False])
@pytest.mark.parametrize(
    ("step", "failure"),
    [
        ("first weights", OSError),
        ("second weights", KeyboardInterrupt),
        ("labels", OSError),
        ("last move", KeyboardInterrupt),
    ],
)
def test_a_failure_at_any_step_leaves_the_folder_as_it_was(tmp_path, monkeypatch, tiny_model, present, step, failure):
    built, yaml = tiny_model("s1", labels=LABELS)
    folder = tmp_path / "run" / "model"
    if present:
        folder.mkdir(parents=True)
        (folder / "hyperparams.yaml").write_text("old")

    def failing(function, fails):
        def call(*args, **options):
            if fails(args):
                raise failure
            return function(*args, **options)

        return call

    def fails_on(name):
        return lambda args: Path(args[1]).name == name

    if step.endswith("weights"):
        name = "embedding_model.ckpt" if step.startswith("first") else "classifier.ckpt"
        monkeypatch.setattr(saving.torch, "save", failing(torch.save, fails_on(name)))
    elif step == "labels":
        monkeypatch.setattr(CategoricalEncoder, "save", failing(CategoricalEncoder.save, lambda args: True))
    else:
        moves = failing(os.replace, lambda args: (Path(args[0]) / "config.json").is_file())
        monkeypatch.setattr(saving.os, "replace", moves)
    with pytest.raises(failure):
        save(folder, built, yaml)
    assert os.listdir(tmp_path / "run") == (["model"] if present else [])
    if present:
        assert os.listdir(folder) == ["hyperparams.yaml"] and (folder / "hyperparams.yaml").read_text() == "old"
