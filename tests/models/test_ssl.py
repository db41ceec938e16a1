"""Self-supervised backbones against the library's networks, called plainly for one utterance after the other."""

import shutil
import sys

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, BertConfig, BertModel

from ser_plugins import GhostVLAD, SSLBackbone, UtteranceEncoder
from ser_plugins.errors import InputError

GROUP = {"feat_extract_norm": "group"}  # the base networks: normalised over time
LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}  # the large ones
NETWORKS = {
    f"{kind}-{name}": (kind, settings)
    for kind in ("wav2vec2", "hubert", "wavlm")
    for name, settings in (("group", GROUP), ("layer", LAYER))
} | {"hubert-batch": ("hubert", {**GROUP, "conv_pos_batch_norm": True})}
SAMPLES = [4000, 2501, 4000, 900]


@pytest.fixture(params=NETWORKS)
def source(request, write_ssl, tmp_path):
    kind, settings = NETWORKS[request.param]
    return str(write_ssl(tmp_path / "source", kind, **settings))


def utterances(samples=SAMPLES):
    rng = np.random.default_rng(0)
    return [torch.from_numpy(rng.normal(0.05, 0.2, n).astype(np.float32)) for n in samples]


def padded(clips):
    batch = pad_sequence(clips, batch_first=True)
    return batch, torch.tensor([len(clip) for clip in clips]) / batch.shape[1]


def by_hand(network, clip, weights, normalize):
    """Normalised waveform, softmax of the weights, sum of the layers, normalised descriptors: in numpy."""
    wav = clip.double().numpy()
    if normalize:
        wav = (wav - wav.mean()) / np.sqrt(wav.var() + 1e-7)
    with torch.no_grad():
        output = network(torch.from_numpy(wav).float()[None], output_hidden_states=True)
    states = [state[0].numpy() for state in (*output.hidden_states[:-1], output.last_hidden_state)]
    shares = np.exp(weights) / np.exp(weights).sum()
    mixture = shares[0] * states[0] + shares[1] * states[1] + shares[2] * states[2]
    return (mixture - mixture.mean(1, keepdims=True)) / np.sqrt(mixture.var(1, keepdims=True) + 1e-5)


@pytest.mark.parametrize("normalize", [True, False])
def test_descriptors_are_the_weighted_layers_of_each_utterance_alone(source, normalize):
    backbone, weights = SSLBackbone(source), np.array([0.3, -1.0, 0.8])
    backbone.description["do_normalize"] = normalize
    backbone.layer_weights.data = torch.tensor(weights, dtype=torch.float32)
    network, clips = AutoModel.from_pretrained(source).eval(), utterances()
    descriptors, lengths = backbone(*padded(clips))
    assert descriptors.shape == (4, 24, backbone.output_size) and descriptors.shape[2] == 16
    for clip, found, length in zip(clips, descriptors, lengths, strict=True):
        expected = by_hand(network, clip, weights, normalize)
        frames = round(float(length) * 24)
        assert frames == len(expected)
        np.testing.assert_allclose(found[:frames].detach(), expected, atol=1e-4)
        assert not found[frames:].any()


@torch.no_grad()
def test_an_utterance_has_the_embedding_that_it_has_alone(source):
    backbone = SSLBackbone(source)
    encoder, clips = UtteranceEncoder(backbone, GhostVLAD(), 8).eval(), utterances()
    batch, lengths = padded(clips)
    longer = torch.nn.functional.pad(batch, (0, 3000))
    together = [encoder(batch, lengths), encoder(longer, lengths * 4000 / 7000), encoder(longer)]
    for i, clip in enumerate(clips):
        alone = encoder(clip[None])[0]
        for embeddings in together:
            torch.testing.assert_close(embeddings[i], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_mask_alone_would_let_padding_in(write_ssl, tmp_path):
    """The reason why utterances of different length are not computed together."""
    network = AutoModel.from_pretrained(write_ssl(tmp_path / "source", "hubert", **GROUP)).eval()
    clip = utterances([2000])[0]
    alone = network(clip[None]).last_hidden_state
    longer, mask = torch.nn.functional.pad(clip, (0, 2000))[None], torch.arange(4000)[None] < 2000
    found = network(longer, attention_mask=mask).last_hidden_state[:, : alone.shape[1]]
    assert (found - alone).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("samples", [1, 100, 164, 165])
def test_less_than_a_frame_and_silence_have_a_descriptor(source, samples):
    backbone = SSLBackbone(source)
    for wavs in (torch.stack(utterances([samples] * 2)), torch.zeros(2, samples)):
        descriptors, lengths = backbone(wavs)
        assert descriptors.shape == (2, 1, 16) and descriptors.isfinite().all() and lengths.tolist() == [1, 1]


def test_frozen_the_network_neither_learns_nor_varies(source):
    backbone = SSLBackbone(source).eval().train()
    assert backbone.training and not any(module.training for module in backbone.network.modules())
    batch, lengths = padded(utterances())
    one, other = backbone(batch, lengths)[0], backbone(batch, lengths)[0]
    assert torch.equal(one, other)
    one.square().mul(torch.randn(16)).sum().backward()
    assert [name for name, weight in backbone.named_parameters() if weight.grad is not None] == ["layer_weights"]


def test_fine_tuned_all_weights_but_the_convolutions_learn(source):
    backbone = SSLBackbone(source, freeze=False)
    descriptors, _ = backbone(torch.stack(utterances([4000] * 2)))
    descriptors.mul(torch.randn(16)).sum().backward()
    for name, weight in backbone.named_parameters():
        # A bias of all keys alike changes no attention.
        learns = not name.startswith("network.feature_extractor")
        assert (weight.grad is not None) == weight.requires_grad == learns, name
        assert not learns or "k_proj.bias" in name or weight.grad.any(), name
    assert backbone.network.encoder.training and not backbone.eval().network.encoder.training


@torch.no_grad()
def test_the_description_and_the_weights_make_the_network_again(source):
    backbone = SSLBackbone(source)
    torch.nn.init.normal_(backbone.layer_weights)
    shutil.rmtree(source)
    again = SSLBackbone(backbone.description)
    batch, lengths = padded(utterances())
    assert not torch.allclose(again(batch, lengths)[0], backbone(batch, lengths)[0], atol=0.1)
    again.load_state_dict(backbone.state_dict())
    assert torch.equal(again(batch, lengths)[0], backbone(batch, lengths)[0])


def test_weights_in_half_precision_are_trained_in_single(write_ssl, tmp_path):
    folder = write_ssl(tmp_path / "source")
    AutoModel.from_pretrained(folder).half().save_pretrained(folder)
    backbone = SSLBackbone(str(folder))
    assert {weight.dtype for weight in backbone.parameters()} == {torch.float32}
    again = SSLBackbone(backbone.description)
    assert {weight.dtype for weight in again.parameters()} == {torch.float32}


def test_autocast_leaves_the_descriptors_near(write_ssl, tmp_path):
    backbone, wavs = SSLBackbone(str(write_ssl(tmp_path / "source"))), torch.stack(utterances([4000] * 2))
    plain, _ = backbone(wavs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast, _ = backbone(wavs)
    assert cast.dtype == torch.float32 and torch.cosine_similarity(plain, cast, dim=-1).mean() > 0.999


def test_what_is_no_such_network_is_refused_with_a_remedy(write_ssl, tmp_path):
    BertModel(BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=8)).save_pretrained(
        tmp_path / "bert"
    )
    shutil.copy(write_ssl(tmp_path / "bare") / "preprocessor_config.json", tmp_path / "bert")
    (tmp_path / "bare" / "preprocessor_config.json").unlink()
    (write_ssl(tmp_path / "weightless") / "model.safetensors").unlink()
    config = write_ssl(tmp_path / "deeper") / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    (tmp_path / "empty").mkdir()
    for name, reason in {"bert": "it is bert", "bare": "", "weightless": "", "deeper": "lacks", "empty": ""}.items():
        with pytest.raises(InputError, match=f"{name} gives no .*{reason}.*HuBERT, WavLM or Whisper$") as caught:
            SSLBackbone(str(tmp_path / name))
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"\[batch, samples\]"):
        SSLBackbone(str(write_ssl(tmp_path / "whole")))(torch.zeros(2, 4000, 1))


def test_without_transformers_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r'pip install "ser-plugins\[ssl\]"'):
        SSLBackbone("microsoft/wavlm-base-plus")
