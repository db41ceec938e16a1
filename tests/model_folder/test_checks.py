"""Checks before publishing: no code, one model in a folder, and the model that was trained."""

import hashlib
import json
import math

import pytest
import safetensors.torch
import torch
from speechbrain.inference.classifiers import EncoderClassifier

from ser_plugins.errors import InputError
from ser_plugins.model_folder.checks import check_model_folder, check_yaml, compare_loaders
from ser_plugins.model_folder.reference import reference_waveform
from ser_plugins.model_folder.saving import save_model_folder

STOCK_ENCODER = "speechbrain.dataio.encoder.CategoricalEncoder"


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def scale(folder, name, also_safetensors=False):
    """Alter a weight, in the pickles or in both forms."""
    weights = torch.load(folder / "embedding_model.ckpt", weights_only=True)
    weights[name] *= 1.5
    torch.save(weights, folder / "embedding_model.ckpt")
    if also_safetensors:
        file = folder / "model.safetensors"
        whole = safetensors.torch.load(file.read_bytes())
        data = safetensors.torch.save({**whole, f"embedding_model.{name}": weights[name]})
        file.write_bytes(data)
        config = json.loads((folder / "config.json").read_text())
        config["sha256"] = {"model.safetensors": hashlib.sha256(data).hexdigest()}
        (folder / "config.json").write_text(json.dumps(config))


def test_the_signal_is_the_same_everywhere():
    """A change of it would void every reference there is."""
    gauss = 1.76405235, 0.40015721, 0.97873798  # how NumPy's old generator begins at seed 0
    hum = [sum(math.sin(2 * math.pi * 120 * k * n / 16000) / k for k in range(1, 21)) for n in range(3)]
    expected = [0.1 * (one + other) for one, other in zip(gauss, hum, strict=True)]
    torch.testing.assert_close(reference_waveform()[0, :3], torch.tensor(expected))
    assert reference_waveform().shape == (1, 32000)


def test_the_reference_is_what_the_stock_interface_gives(model):
    reference = json.loads((model / "reference.json").read_text())
    stock = EncoderClassifier.from_hparams(source=str(model))
    torch.testing.assert_close(stock.encode_batch(reference_waveform()).flatten(), torch.tensor(reference["embedding"]))
    scores = stock.classify_batch(reference_waveform())[0]
    torch.testing.assert_close(scores.flatten(), torch.tensor(reference["log_probabilities"]))


def test_an_earlier_folder_without_reference_passes_in_a_separate_process(model, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    reference = json.loads((model / "reference.json").read_text())
    (model / "reference.json").unlink()
    found = check_model_folder(model)
    assert found.keys() == reference.keys()
    for name, values in found.items():
        torch.testing.assert_close(torch.tensor(values), torch.tensor(reference[name]))
    assert not (model / "reference.json").exists()


def test_errors_of_the_separate_process_are_one_line(model):
    (model / "embedding_model.ckpt").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"model cannot be loaded \(.*; write the folder again") as caught:
        check_model_folder(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["hyperparams.yaml", "model.safetensors", "label_encoder.ckpt"])
def test_a_missing_file_is_named(model, name):
    (model / name).unlink()
    with pytest.raises(InputError, match=rf"{name} is missing; give the model/ or encoder/ folder"):
        check_model_folder(model)


def test_two_models_in_one_folder_are_refused(model):
    scale(model, "embedding.weight")
    with pytest.raises(InputError, match=r"files and model\.safetensors are different models \(embedding off by"):
        compare_loaders(model)


def test_another_model_than_that_of_the_reference_is_refused(model):
    scale(model, "embedding.weight", also_safetensors=True)
    with pytest.raises(InputError, match=r"is not the model of its reference\.json \(embedding off by"):
        compare_loaders(model)


def test_weights_with_another_normalisation_are_refused(model):
    """Both forms load and agree; only what was trained tells that it heard other features."""
    edit(model / "hyperparams.yaml", "axis: utterance", "axis: bin")
    edit(model / "config.json", '"axis": "utterance"', '"axis": "bin"')
    check_yaml(model)
    with pytest.raises(InputError, match=r"is not the model of its reference\.json"):
        compare_loaders(model)


def test_yaml_and_json_of_two_models_are_refused(model):
    edit(model / "hyperparams.yaml", "embedding_size: 12", "embedding_size: 13")
    with pytest.raises(InputError, match=r"hyperparams\.yaml and config\.json define different models"):
        check_yaml(model)


def test_labels_in_another_order_are_refused(model):
    encoder = model / "label_encoder.ckpt"
    lines = encoder.read_text().replace("happy", "?").replace("sad", "happy").replace("?", "sad")
    encoder.write_text(lines)
    with pytest.raises(InputError, match=r"label_encoder\.ckpt and config\.json have different labels"):
        compare_loaders(model)


@pytest.mark.parametrize(
    "code",
    [
        "extra: !apply:pathlib.Path.touch [proof]",
        "extra: !new:pathlib.Path [proof]",
        "extra: !name:os.system",
        "extra: !include:other.yaml",
        "extra: !!python/object/apply:os.system [touch proof]",
        "? !apply:os.system [touch proof]\n: 1",
        "extra: [{deep: !apply:os.system [touch proof]}]",
    ],
)
def test_code_is_refused_and_not_run(model, code, monkeypatch):
    monkeypatch.chdir(model)
    with (model / "hyperparams.yaml").open("a") as file:
        file.write(f"\n{code}\n")
    with pytest.raises(InputError, match=r"hyperparams\.yaml: .* is not a class that may be published"):
        check_model_folder(model)
    assert not (model / "proof").exists()


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("  loadables:", "  paths: {classifier: /elsewhere}\n  loadables:", "paths"),
        ("  classifier: !ref <classifier>\nmean_var", "mean_var", "classifier"),
        ("label_encoder: !new", "stray: 1\nlabel_encoder: !new", "stray"),
    ],
)
def test_missing_and_unknown_keys_are_named(model, old, new, named):
    edit(model / "hyperparams.yaml", old, new)
    with pytest.raises(InputError, match=rf"hyperparams\.yaml: {named} missing or unknown"):
        check_yaml(model)


def test_a_model_that_does_not_accept_the_signal_is_saved(tmp_path, model, caplog):
    yaml, odd = (model / "hyperparams.yaml").read_text(), torch.nn.Linear(2, 2)
    save_model_folder(tmp_path / "odd", yaml, odd, odd, ["a", "b"])
    assert "reference.json is not written" in caplog.text
    assert (tmp_path / "odd" / "embedding_model.ckpt").is_file()


def test_folders_of_earlier_versions_pass(model):
    """They name SpeechBrain's own label encoder, and have no module for encode_batch(normalize=True)."""
    edit(model / "hyperparams.yaml", "ser_plugins.model_folder.interface.LabelEncoder", STOCK_ENCODER)
    edit(model / "hyperparams.yaml", "mean_var_norm_emb: !new:ser_plugins.model_folder.interface.UnitLength\n", "")
    check_yaml(model)
    compare_loaders(model)
