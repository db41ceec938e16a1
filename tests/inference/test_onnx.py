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

from ser_plugins import MarginClassifier, load
from ser_plugins.audio.spectrogram import Spectrogram, SpectrogramNorm
from ser_plugins.commands import main
from ser_plugins.errors import InputError
from ser_plugins.inference import onnx as onnx_export
from ser_plugins.inference import speaker_statistics
from ser_plugins.inference.onnx import FOURIER, convert, export, quantise
from ser_plugins.model_folder.saving import save_model_folder
from ser_plugins.models.batchnorm import MaskedBatchNorm

ROOT = Path(__file__).parents[2]
LABELS = ["neutral", "fröhlich", "sad", "angry"]
SPECTROGRAM = """
audio_normalizer: !new:ser_plugins.SpeechNormalizer
    vad: none
compute_features: !new:ser_plugins.{features}
mean_var_norm: !new:ser_plugins.SpectrogramNorm
    {norm}
embedding_model: !new:ser_plugins.UtteranceEncoder
    backbone: !new:ser_plugins.SEResNet34
        n_bins: {n_bins}
        channels: [4, 4, 8, 8]
        blocks: [1, 1, 1, 1]
    pooling: !new:ser_plugins.GhostVLAD
        input_size: 8
        clusters: 4
    embedding_size: 12
    speaker_normalization: {speaker}
classifier: !new:ser_plugins.{classifier}
"""
SOFTMAX = "SoftmaxClassifier\n    input_size: 12\n    n_classes: 4"
PLAIN = {"features": "Spectrogram", "n_bins": 257, "norm": "axis: utterance", "speaker": "none", "classifier": SOFTMAX}
# Each kind of feature, normalisation and classifier once: an export takes seconds.
KINDS = {
    "mel, svm": {
        "features": "MelSpectrogram\n    n_mels: 64",
        "n_bins": 64,
        "classifier": "SVMClassifier\n    n_classes: 4",
    },
    "short windows, margin": {
        "features": "Spectrogram\n    win_length: 25.0",
        "norm": "axis: frame",
        "classifier": "MarginClassifier\n    input_size: 12\n    n_classes: 4",
    },
    "filterbanks, softmax": {
        "features": "KaldiFbank\n    n_mels: 80",
        "n_bins": 80,
    },
    "speaker, softmax": {
        "norm": "speaker_normalization: features+embeddings",
        "speaker": "features+embeddings",
    },
}
YAMLS = {name: SPECTROGRAM.format(**{**PLAIN, **kind}) for name, kind in KINDS.items()}


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
    if isinstance(classifier, MarginClassifier):
        classifier.temperature.fill_(3.0)
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


class Exported:
    """A model folder exported by the command line, with statistics of a speaker where its model uses them."""

    def __init__(self, root, yaml):
        self.folder, self.path, self.speaker = write(root / "model", yaml), root / "new" / "model.onnx", None
        self.model = load(self.folder)
        words = ["export", str(self.folder), "--onnx", str(self.path)]
        if "features+embeddings" in yaml:
            recordings = [root / f"{number}.wav" for number in range(3)]
            for path, wav in zip(recordings, speech(16000, 12000, 9000)[2], strict=True):
                soundfile.write(path, wav / 4, 16000)
            self.speaker = speaker_statistics(self.model, recordings)
            words += ["--speaker", *map(str, recordings)]
        main(words)

    def embed(self, *batch):
        return self.model.encode_batch(*batch, speaker=self.speaker)


FAST = "speaker, softmax"
PARAMS = [pytest.param(name, marks=() if name == FAST else pytest.mark.slow) for name in YAMLS]


@pytest.fixture(scope="module", params=PARAMS)
def exported(request, tmp_path_factory):
    return Exported(tmp_path_factory.mktemp("exported"), YAMLS[request.param])


@pytest.mark.parametrize(
    "counts", [(1600,), (48000,), (16000, 16000), (31337, 1600, 20001), (40000, 39999, 39841, 8000)]
)
def test_it_computes_what_the_model_does(exported, counts):
    wavs, lengths, _ = speech(*counts)
    embeddings, scores = ask(open_session(exported.path), wavs, lengths)
    expected = exported.embed(wavs, lengths)
    assert embeddings.shape == expected.shape and embeddings.abs().max() > 0.05
    torch.testing.assert_close(embeddings, expected, atol=1e-4, rtol=0)
    classified = exported.model.classify_batch(wavs, lengths, speaker=exported.speaker)[0]
    torch.testing.assert_close(scores, classified, atol=1e-4, rtol=0)


def test_padding_changes_nothing(exported):
    session, (wavs, lengths, alone) = open_session(exported.path), speech(31337, 1600, 20001, 15999)
    for row, wav in zip(ask(session, wavs, lengths)[0], alone, strict=True):
        torch.testing.assert_close(row, ask(session, wav[None], torch.ones(1))[0][0], atol=2e-5, rtol=0)


def test_samples_beyond_a_length_have_no_effect(exported):
    wavs, lengths = torch.rand(2, 16000) - 0.5, torch.tensor([0.37, 1.0])
    found = ask(open_session(exported.path), wavs, lengths)[0]
    torch.testing.assert_close(found, exported.embed(wavs, lengths), atol=1e-4, rtol=0)


def test_its_metadata_describe_the_model(exported):
    session = open_session(exported.path)
    about = session.get_modelmeta().custom_metadata_map
    assert about["speaker_statistics"] == ("true" if exported.speaker else "false")
    assert json.loads(about["labels"]) == LABELS and about["sample_rate"] == "16000"
    assert about["checksum"] == exported.model.checksum and len(about["checksum"]) == 64
    assert json.loads(about["audio_normalizer"]) == {"vad": "none"}
    shapes = {one.name: one.shape for one in (*session.get_inputs(), *session.get_outputs())}
    assert shapes == {
        "waveforms": ["batch", "samples"],
        "lengths": ["batch"],
        "embeddings": ["batch", 1, 12],
        "log_probabilities": ["batch", 4],
    }
    assert not re.search(rb"site-packages|ser_plugins/", exported.path.read_bytes())


@pytest.mark.parametrize("settings", [{"axis": "bin"}, {"speaker_normalization": "features"}])
def test_other_normalisations_are_computed_alike(tmp_path, settings):
    norm, feats = SpectrogramNorm(**settings), Spectrogram(log=True)(speech(16000, 4000)[0])
    proto = convert(norm, (feats,), {"feats": ("batch", "frames")}, ("normalised",))
    (found,) = open_session(proto.SerializeToString()).run(None, {"feats": feats.numpy()})
    np.testing.assert_allclose(found, norm(feats).numpy(), atol=1e-4)


def test_a_model_with_speaker_normalisation_asks_for_the_speaker(tmp_path, monkeypatch, caplog):
    folder = write(tmp_path / "model", YAMLS["speaker, softmax"])
    monkeypatch.setattr(onnx_export, "convert", lambda network, *_, **options: onnx.ModelProto())
    export(folder, tmp_path / "model.onnx")
    assert "give --speaker" in caplog.text


def test_eight_bits_come_close(exported):
    path, int8 = exported.path, exported.path.with_name("int8.onnx")
    quantise(path, int8)
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


@pytest.mark.parametrize(
    ("yaml", "front"), [pytest.param(HANDMADE, "CepstralFeatures", marks=pytest.mark.slow), (SSL, "SSLBackbone")]
)
def test_features_that_cannot_be_exported_are_named(yaml, front, tmp_path):
    folder = write(tmp_path / "model", yaml)
    with pytest.raises(InputError, match=rf"{front}, .*; give") as caught:
        export(folder, tmp_path / "model.onnx")
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    assert not (tmp_path / "model.onnx").exists()


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    folder = write(tmp_path / "model", YAMLS["mel, svm"])
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"pip install \"ser-plugins\[onnx\]\"$"):
        export(folder, tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime.quantization", None)
    with pytest.raises(InputError, match=r"pip install \"ser-plugins\[onnx\]\"$"):
        quantise(tmp_path / "model.onnx", tmp_path / "int8.onnx")


def test_the_snippet_of_the_docs_runs(exported, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").write_bytes(exported.path.read_bytes())
    tone = np.sin(np.arange(44100) / 20) * np.random.default_rng(0).uniform(0.1, 0.3, 44100)
    soundfile.write("utterance.wav", tone, 44100)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "onnx.md").read_text(encoding="utf-8"), re.DOTALL)
    names = {}
    for block in blocks:
        exec(block, names)
    assert (
        capsys.readouterr().out.split()[0]
        == exported.model.classify_file("utterance.wav", speaker=exported.speaker)[3][0]
    )
