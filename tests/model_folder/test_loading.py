"""The model folder from plain JSON and safetensors against SpeechBrain's own way."""

import hashlib
import json
import pickle
import re
import shutil
import socket
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch
from ruamel.yaml import YAML
from safetensors.torch import save_file
from speechbrain.inference.classifiers import EncoderClassifier

from ser_plugins import SSLBackbone, configuration, load
from ser_plugins.errors import InputError
from ser_plugins.model_folder.description import CLASSES, build, describe
from ser_plugins.model_folder.reference import compare_outputs, reference_output, reference_waveform
from ser_plugins.model_folder.saving import SECTIONS, inference_yaml, save_model_folder

HPARAMS = Path(__file__).parents[2] / "hparams"
README = HPARAMS.parent / "README.md"
LABELS = ["neutral", "happy", "it's sad", "fröhlich", "4"]
STRATEGIES = ["s1", "s5", "s5_thin", "kumar", "bhavan", "ghaleb", "issa", "chi", "ma", "huang2018", "ssl"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_model):
    return write_model(tmp_path_factory.mktemp("s1") / "model", "s1", labels=LABELS)


@pytest.fixture
def copy(folder, tmp_path):
    """A copy of a folder that a test may damage."""
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def isolated():
    """Neither network nor pickles."""
    with isolation():
        yield


@contextmanager
def isolation():
    def refuse(*_, **__):
        raise AssertionError("a socket or a pickle was used")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
            patch.setattr(module, name, refuse)
        yield


def change(folder, edit):
    config = json.loads((folder / "config.json").read_text())
    edit(config)
    (folder / "config.json").write_text(json.dumps(config))


def same_decisions(found, expected):
    for one, other in zip(found[:3], expected[:3], strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
    assert found[3] == expected[3]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_is_the_model_of_the_stock_interface(strategy, tmp_path, write_ssl, write_model):
    changes = {"ssl_source": str(write_ssl(tmp_path / "source"))} if strategy == "ssl" else {}
    folder = write_model(tmp_path / "model", strategy, labels=LABELS, **changes)
    stock = EncoderClassifier.from_hparams(source=str(folder), savedir=str(tmp_path / "fetched"))
    compare_outputs(reference_output(stock.mods), json.loads((folder / "reference.json").read_text()))
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, bare)
    shutil.rmtree(folder)
    shutil.rmtree(tmp_path / "source", ignore_errors=True)
    with isolation():  # for the loading alone: librosa's compiler unpickles its own cache
        model = load(bare)

    rng = np.random.default_rng(0)
    clips = [torch.from_numpy(rng.normal(0, 0.1, size).astype(np.float32)) for size in (9000, 16000, 4001)]
    wavs = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    lengths = torch.tensor([len(clip) / 16000 for clip in clips])
    for given in ((wavs, lengths), (wavs,), (clips[0],)):
        torch.testing.assert_close(model.encode_batch(*given), stock.encode_batch(*given), atol=1e-6, rtol=0)
        same_decisions(model.classify_batch(*given), stock.classify_batch(*given))
    assert set(model.classify_batch(wavs)[3]) <= set(LABELS)
    assert not any(module.training for module in model.mods.modules())
    assert not any(weight.requires_grad for weight in model.parameters())

    path = tmp_path / "stereo.wav"
    soundfile.write(path, rng.normal(0, 0.1, (30000, 2)), 44100)
    same_decisions(model.classify_file(path), stock.classify_file(str(path)))
    embedding = stock.encode_batch(stock.load_audio(str(path))[None])
    torch.testing.assert_close(model.encode_file(path), embedding, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "kind", ["ForestClassifier {trees: 5, ", "NeighbourClassifier {", "PerceptronClassifier {alpha: [1.0], "]
)
def test_a_fitted_classifier_is_exported_without_a_pickle(kind, tmp_path, write_model):
    inner = f"!new:ser_plugins.{kind}n_classes: !ref <n_classes>}}"
    node = YAML().load(f"!new:ser_plugins.SelectedClassifier {{features: 20, classifier: {inner}}}")
    folder = write_model(tmp_path / "model", "chi", labels=LABELS, classifier=node)
    with isolation():
        model = load(folder)
    compare_outputs(reference_output(model.mods), json.loads((folder / "reference.json").read_text()))
    assert type(model.mods.classifier.classifier).__name__ in kind and len(model.mods.classifier.selected) == 20


@pytest.mark.parametrize("name", sorted(path.stem for path in HPARAMS.glob("*.yaml")))
def test_the_modules_of_every_strategy_are_known(name):
    if name in {
        "base",
        "emotion",
        "speaker",
        "teacher",
        "ssl",
    }:  # parts of strategies; an SSL backbone is known once it is built
        return
    resolved = configuration.resolve(configuration.compose(name, "synthetic"))
    found = json.loads(json.dumps({section: describe(resolved[section]) for section in SECTIONS}))
    assert {part["class"] for part in found.values()} <= set(CLASSES)


def test_a_class_of_ones_own_is_kept_for_the_stock_interface(tmp_path, caplog):
    tree = configuration.resolve(configuration.compose("s1", "synthetic"))
    tree["mean_var_norm"] = YAML().load("!new:torch.nn.ReLU")
    yaml, model = inference_yaml(tree), torch.nn.Linear(2, 2)
    save_model_folder(tmp_path / "model", yaml, model, model, LABELS)
    assert "torch.nn.ReLU" in caplog.text and "from_hparams" in caplog.text
    assert not (tmp_path / "model" / "model.safetensors").exists()
    with pytest.raises(InputError, match=r"config\.json describes no modules; a class .* own: .*from_hparams$"):
        load(tmp_path / "model")


def test_altered_weights_are_refused(copy):
    file = copy / "model.safetensors"
    data = file.read_bytes()
    altered = data[:-1] + bytes([data[-1] ^ 1])
    for spoiled in (altered, data[:-8], data + b"\0", b""):
        file.write_bytes(spoiled)
        with pytest.raises(InputError, match=r"model\.safetensors does not have the checksum in config\.json"):
            load(copy)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(InputError, match=rf"{name} is missing; give"):
        load(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"speechbrain_interface": "EncoderClassifier"}', "[" * 100000])
def test_a_config_without_modules_is_refused(copy, text):
    (copy / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json (is not valid JSON|describes no modules)") as caught:
        load(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("name", ["os.system", "ser_plugins.configuration.read", "builtins.eval", ["x"], None])
def test_an_unknown_class_is_refused(copy, monkeypatch, section, name):
    change(copy, lambda config: config["modules"].update({section: {"class": name, "arguments": ["touch x"]}}))
    monkeypatch.chdir(copy)
    with pytest.raises(InputError, match=r"config\.json: class .* is not one that ser_plugins\.load builds") as caught:
        load(copy)
    assert not (copy / "x").exists() and "\n" not in str(caught.value)


def test_modules_and_weights_that_do_not_fit_are_refused(copy):
    def spoil(config):
        config["modules"]["embedding_model"]["arguments"]["embedding_size"] = 13

    for edit in (
        spoil,
        lambda config: config["modules"].pop("classifier"),
        lambda config: config["modules"]["classifier"]["arguments"].update(colour="red"),
        lambda config: config["modules"].update(compute_features=3),
        lambda config: config.pop("labels"),
    ):
        before = (copy / "config.json").read_text()
        change(copy, edit)
        with pytest.raises(InputError, match=r"config\.json and model\.safetensors do not make a model \(") as caught:
            load(copy)
        assert "\n" not in str(caught.value)
        (copy / "config.json").write_text(before)


def test_weights_must_be_all_and_no_more(copy):
    file = copy / "model.safetensors"
    whole = safetensors.torch.load(file.read_bytes())
    missing = {name: weight for name, weight in whole.items() if name != "classifier.linear.weight"}
    for weights in (missing, {**whole, "stray": torch.zeros(1)}):
        save_file(weights, file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        change(copy, lambda config, digest=digest: config.update(sha256={"model.safetensors": digest}))
        with pytest.raises(InputError, match="do not make a model"):
            load(copy)


@pytest.mark.parametrize("arguments", [{"source": "evil/wavlm"}, ["evil/wavlm"]])
def test_a_self_supervised_network_is_not_fetched(arguments, isolated):
    with pytest.raises(InputError, match="outside of the folder"):
        build({"class": "ser_plugins.SSLBackbone", "arguments": arguments})


def test_a_description_names_no_code(write_ssl, tmp_path, isolated):
    description = SSLBackbone(str(write_ssl(tmp_path / "source"))).description
    evil = {"attn_implementation": "evil/kernel", "auto_map": {"AutoModel": "evil/code--model.Model"}}
    evil |= {"_attn_implementation": "evil/kernel", "quantization_config": {"quant_method": "evil"}}
    config = build({"class": "ser_plugins.SSLBackbone", "arguments": [{**description, **evil}]}).network.config
    assert "evil" not in f"{config.to_dict()} {vars(config)}"
    with pytest.raises(InputError, match="'bert'"):
        build({"class": "ser_plugins.SSLBackbone", "arguments": [{**description, "model_type": "bert"}]})


def test_of_the_hub_two_files_are_fetched(folder, monkeypatch):
    asked = []

    def snapshot_download(repo_id, **options):
        asked.append((repo_id, options))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    load("user/name", revision="v1")
    assert asked == [("user/name", {"revision": "v1", "allow_patterns": ["config.json", "model.safetensors"]})]


def test_a_folder_has_no_revisions(folder):
    with pytest.raises(InputError, match=rf"{folder} is a folder, which has no revisions; leave --revision out"):
        load(folder, revision="v1")


@pytest.mark.parametrize("source", ["nowhere", "./user/name", "user/name/more", "/user/name"])
def test_a_source_that_is_neither_folder_nor_hub_id_needs_no_network(source, isolated):
    with pytest.raises(InputError, match="give a folder or a Hub id"):
        load(source)


def test_a_hub_that_does_not_answer_is_one_line(monkeypatch):
    def snapshot_download(*_, **__):
        raise OSError("no network\nat all")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(InputError, match=r"no folder user/name, and it cannot be downloaded from the Hub: no network$"):
        load("user/name")


def test_the_checksum_is_that_of_the_model(folder, copy, tmp_path, write_model):
    other = load(write_model(tmp_path / "s3", "s3", labels=LABELS))
    assert load(folder).checksum == load(copy).checksum != other.checksum
    change(copy, lambda config: config["labels"].reverse())
    assert load(copy).checksum != load(folder).checksum


@pytest.mark.parametrize("device", ["abacus", "cuda:99"])
def test_a_missing_device_is_named(folder, device):
    with pytest.raises(InputError, match=f"no device {device}; give cpu"):
        load(folder, device=device)


@torch.no_grad()
def test_two_models_loaded_one_after_the_other_are_two(folder, tmp_path, write_model, monkeypatch):
    """By the lines of README and the pages, in one working folder."""
    other = write_model(tmp_path / "other", "s3", seed=2, labels=["a", "b"], polarity={})
    monkeypatch.chdir(tmp_path)
    pages = [README, *(README.parent / "docs" / name for name in ("index.md", "recipes.md"))]
    loading = {line for page in pages for line in re.findall(r"^model = EncoderClassifier.*$", page.read_text(), re.M)}
    assert loading
    for line in loading:
        for source in (folder, other, folder):
            names = {"EncoderClassifier": EncoderClassifier}
            exec(re.sub(r'source="[^"]*"', f'source="{source}"', line), names)
            expected = json.loads((source / "reference.json").read_text())["embedding"]
            found = names["model"].encode_batch(reference_waveform()).flatten()
            torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_stock_interface_does_not_warn_and_scales_embeddings(folder, monkeypatch):
    from speechbrain.dataio import encoder

    monkeypatch.setattr(encoder.logger, "warning_once", pytest.fail)  # "expect_len was never called"
    model, wavs = EncoderClassifier.from_hparams(source=str(folder)), torch.randn(2, 8000)
    assert len(model.classify_batch(wavs)[3]) == 2
    raw = model.encode_batch(wavs)
    torch.testing.assert_close(model.encode_batch(wavs, normalize=True), raw / raw.norm(dim=-1, keepdim=True))


def test_our_interface_scales_embeddings_of_any_folder(folder):
    wavs = torch.randn(2, 8000)
    model = load(folder)
    raw, scaled = model.encode_batch(wavs), model.encode_batch(wavs, normalize=True)
    torch.testing.assert_close(scaled, raw / raw.norm(dim=-1, keepdim=True))


@pytest.mark.parametrize("level", [1e38, float("nan")])
def test_an_embedding_that_is_not_finite_is_an_error(folder, level):
    wavs = torch.zeros(1, 8000)
    wavs[0, 4000] = level
    with pytest.raises(InputError, match="an embedding is not finite; check the waveforms for extreme values"):
        load(folder).classify_batch(wavs)


def test_silent_files_are_refused_by_name(folder, tmp_path):
    samples = np.random.default_rng(0).normal(0, 0.1, 8000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(8000), 16000)
    soundfile.write(tmp_path / "cancelling.wav", np.stack([samples, -samples], 1), 16000)
    for name in ("silent.wav", "cancelling.wav"):
        with pytest.raises(InputError, match=rf"{name}: it is silent; record it again"):
            load(folder).classify_file(tmp_path / name)


def test_labels_of_another_number_than_the_classes_are_refused(copy):
    change(copy, lambda config: config["labels"].pop())
    with pytest.raises(InputError, match=r"config\.json: 4 labels for 5 classes; download or export the folder again"):
        load(copy)
