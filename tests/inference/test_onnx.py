"""ONNX files in onnxruntime against the model folders that they are made from."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml

from ser_plugins import load
from ser_plugins.commands import main
from ser_plugins.errors import InputError
from ser_plugins.inference import adapt
from ser_plugins.inference.onnx import FOURIER, export, quantise
from ser_plugins.model_folder.saving import save_model_folder
from ser_plugins.models.batchnorm import MaskedBatchNorm

ROOT = Path(__file__).parents[2]
LABELS = ["neutral", "fröhlich", "sad", "angry"]
SPECTROGRAM = """
audio_normalizer: !new:ser_plugins.SpeechNormalizer
    vad: none
compute_features: !new:ser_plugins.Spectrogram
    log: true
    win_length: {win_length}
mean_var_norm: !new:ser_plugins.SpectrogramNorm
    axis: {axis}
embedding_model: !new:ser_plugins.UtteranceEncoder
    backbone: !new:ser_plugins.SEResNet34
        channels: [4, 4, 8, 8]
        blocks: [1, 1, 1, 1]
    pooling: !new:ser_plugins.GhostVLAD
        input_size: 8
        clusters: 4
    embedding_size: 12
classifier: !new:ser_plugins.{classifier}
"""
SOFTMAX = "SoftmaxClassifier\n    input_size: 12\n    n_classes: 4"
KINDS = {
    "softmax": SPECTROGRAM.format(win_length=32.0, axis="utterance", classifier=SOFTMAX),
    "svm": SPECTROGRAM.format(win_length=32.0, axis="bin", classifier="SVMClassifier\n    n_classes: 4"),
    "speakers": SPECTROGRAM.format(
        win_length=25.0, axis="frame", classifier="MarginClassifier\n    input_size: 12\n    n_classes: 4"
    ),
}
KINDS["mel"] = (
    KINDS["softmax"]
    .replace("ser_plugins.Spectrogram", "ser_plugins.MelSpectrogram\n    n_mels: 64", 1)
    .replace("SEResNet34", "SEResNet34\n        n_bins: 64")
)


def write(folder, yaml):
    """A model folder of any weights and statistics."""
    torch.manual_seed(1)
    built = load_hyperpyyaml(yaml)
    model, classifier = built["embedding_model"], built["classifier"]
    for module in model.modules():
        if isinstance(module, MaskedBatchNorm):
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    if hasattr(classifier, "fit"):
        classifier.fit(torch.randn(20, 1, 12), torch.arange(20) % 4)  # few support vectors: cdist has another way
    save_model_folder(folder, yaml, model, classifier, LABELS)
    return folder


def open_session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def ask(session, wavs, lengths):
    found = session.run(None, {"waveforms": wavs.numpy(), "lengths": lengths.numpy()})
    return [torch.from_numpy(one) for one in found]


def speech(*counts):
    """A padded batch of noises, each swelling at a rate of its own, and its relative lengths."""
    torch.manual_seed(len(counts))
    wavs = [torch.randn(n) * torch.linspace(0, 20 + i, n).sin() * 0.2 for i, n in enumerate(counts)]
    return torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True), torch.tensor(counts) / max(counts), wavs


@pytest.fixture(scope="module", params=KINDS)
def exported(request, tmp_path_factory):
    """A model, and its files as the command line writes them."""
    root = tmp_path_factory.mktemp(request.param)
    folder, files = write(root / "model", KINDS[request.param]), root / "new"
    main(["export", str(folder), "--onnx", str(files / "model.onnx"), "--int8", str(files / "int8.onnx")])
    assert sorted(path.name for path in files.iterdir()) == ["int8.onnx", "model.onnx"]
    return load(folder), files / "model.onnx"


@pytest.mark.parametrize(
    "counts", [(1600,), (48000,), (16000, 16000), (31337, 1600, 20001), (40000, 39999, 39841, 8000)]
)
def test_it_answers_as_the_model_does(exported, counts):
    model, path = exported
    wavs, lengths, _ = speech(*counts)
    embeddings, scores = ask(open_session(path), wavs, lengths)
    expected = model.encode_batch(wavs, lengths)
    assert embeddings.shape == expected.shape and embeddings.abs().max() > 0.2
    torch.testing.assert_close(embeddings, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(scores, model.classify_batch(wavs, lengths)[0], atol=1e-4, rtol=0)


def test_padding_changes_nothing(exported):
    session, (wavs, lengths, alone) = open_session(exported[1]), speech(31337, 1600, 20001, 15999)
    for row, wav in zip(ask(session, wavs, lengths)[0], alone, strict=True):
        torch.testing.assert_close(row, ask(session, wav[None], torch.ones(1))[0][0], atol=2e-5, rtol=0)


def test_what_lies_beyond_a_length_is_not_heard(exported):
    model, path = exported
    wavs, lengths = torch.rand(2, 16000) - 0.5, torch.tensor([0.37, 1.0])
    torch.testing.assert_close(
        ask(open_session(path), wavs, lengths)[0], model.encode_batch(wavs, lengths), atol=1e-4, rtol=0
    )


def test_it_says_what_it_is(exported):
    model, path = exported
    session = open_session(path)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["labels"]) == LABELS and about["sample_rate"] == "16000"
    assert about["checksum"] == model.checksum and len(about["checksum"]) == 64
    assert json.loads(about["audio_normalizer"]) == {"vad": "none"}
    shapes = {one.name: one.shape for one in (*session.get_inputs(), *session.get_outputs())}
    assert shapes == {
        "waveforms": ["batch", "samples"],
        "lengths": ["batch"],
        "embeddings": ["batch", 1, 12],
        "log_probabilities": ["batch", 4],
    }
    assert not re.search(rb"site-packages|ser_plugins/", path.read_bytes())


@pytest.mark.parametrize("centred", [False, True])
def test_a_file_for_one_speaker_hears_as_the_model_does(tmp_path, caplog, centred):
    spoken = [tmp_path / f"{number}.wav" for number in range(3)]
    for path, wav in zip(spoken, speech(16000, 12000, 9000)[2], strict=True):
        soundfile.write(path, wav / 4, 16000)
    yaml = KINDS["softmax"].replace("axis: utterance", "axis: speaker")
    yaml = yaml.replace("embedding_size: 12", f"embedding_size: 12\n    speaker_centred: {centred}")
    folder = write(tmp_path / "model", yaml)
    model, (wavs, lengths, _) = load(folder), speech(31337, 20001)
    for path, words in ((tmp_path / "any.onnx", []), (tmp_path / "ann.onnx", ["--speaker", *map(str, spoken)])):
        caplog.clear()
        main(["export", str(folder), "--onnx", str(path), *words])
        assert ("give --speaker" in caplog.text) == (not words)
        session = open_session(path)
        assert session.get_modelmeta().custom_metadata_map["told_speaker"] == ("true" if words else "false")
        if words:
            adapt(model, spoken)
        torch.testing.assert_close(ask(session, wavs, lengths)[0], model.encode_batch(wavs, lengths), atol=1e-4, rtol=0)


def test_eight_bits_come_close(exported):
    path = exported[1]
    int8 = path.with_name("int8.onnx")
    session, (wavs, lengths, _) = open_session(int8), speech(31337, 16000, 20001)
    found, exact = ask(session, wavs, lengths)[0], ask(open_session(path), wavs, lengths)[0]
    assert torch.cosine_similarity(found, exact, dim=2).min() > 0.97
    assert session.get_modelmeta().custom_metadata_map["checksum"]
    graph = onnx.load(int8).graph
    large = {one.name for one in graph.initializer if one.data_type == onnx.TensorProto.FLOAT and len(one.dims) > 2}
    assert large == {FOURIER} and any(node.op_type == "ConvInteger" for node in graph.node)


HANDMADE = """
audio_normalizer: !new:ser_plugins.SpeechNormalizer
compute_features: !new:ser_plugins.CepstralFeatures
mean_var_norm: !new:torch.nn.Identity
embedding_model: !new:torch.nn.Identity
classifier: !new:ser_plugins.SoftmaxClassifier [80, 4]
"""
SSL = """
audio_normalizer: !new:ser_plugins.SpeechNormalizer
compute_features: !new:torch.nn.Identity
mean_var_norm: !new:torch.nn.Identity
embedding_model: !new:ser_plugins.UtteranceEncoder
    backbone: !new:ser_plugins.SSLBackbone
        source: {model_type: wavlm, do_normalize: true, num_hidden_layers: 1, num_attention_heads: 2, hidden_size: 16,
            intermediate_size: 32, num_conv_pos_embeddings: 8, num_conv_pos_embedding_groups: 2, conv_dim: [8],
            conv_kernel: [10], conv_stride: [5], num_feat_extract_layers: 1}
    pooling: !new:ser_plugins.MeanPooling [16]
    embedding_size: 12
classifier: !new:ser_plugins.SoftmaxClassifier [12, 4]
"""


@pytest.mark.parametrize(("yaml", "front"), [(HANDMADE, "CepstralFeatures"), (SSL, "SSLBackbone")])
def test_what_cannot_be_exported_is_told(yaml, front, tmp_path):
    folder = write(tmp_path / "model", yaml)
    with pytest.raises(InputError, match=rf"{front}, .*; give") as caught:
        export(folder, tmp_path / "model.onnx")
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    assert not (tmp_path / "model.onnx").exists()


def test_a_missing_package_is_told(tmp_path, monkeypatch):
    folder = write(tmp_path / "model", KINDS["softmax"])
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"pip install \"ser-plugins\[onnx\]\"$"):
        export(folder, tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime.quantization", None)
    with pytest.raises(InputError, match=r"pip install \"ser-plugins\[onnx\]\"$"):
        quantise(tmp_path / "model.onnx", tmp_path / "int8.onnx")


def test_the_snippet_of_the_docs_runs(exported, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").write_bytes(exported[1].read_bytes())
    tone = np.sin(np.arange(44100) / 20) * np.random.default_rng(0).uniform(0.1, 0.3, 44100)
    soundfile.write("utterance.wav", tone, 44100)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "onnx.md").read_text(encoding="utf-8"), re.DOTALL)
    names = {}
    for block in blocks:
        exec(block, names)
    assert capsys.readouterr().out.split()[0] == exported[0].classify_file("utterance.wav")[3][0]
