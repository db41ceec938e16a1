"""Whisper's encoder against the library transformers, and its conversion from files written by hand."""

import struct

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

from ser_plugins import SSLBackbone, StatisticsPooling, UtteranceEncoder
from ser_plugins.errors import InputError
from ser_plugins.model_folder.lineage import read_lineage
from ser_plugins.model_folder.whisper import convert_whisper

SECOND = 16000
SIZES = {"d_model": 16, "num_mel_bins": 80, "encoder_layers": 3, "encoder_attention_heads": 2, "encoder_ffn_dim": 24}
SMALL = {"decoder_layers": 1, "decoder_ffn_dim": 8, "decoder_attention_heads": 2, "vocab_size": 8}
TOKENS = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0)


@pytest.fixture
def network():
    torch.manual_seed(0)
    model = WhisperModel(WhisperConfig(**SIZES, **SMALL, **TOKENS, max_source_positions=50)).eval()
    for name, weight in model.named_parameters():
        if "embed_positions" not in name:
            torch.nn.init.normal_(weight, std=0.2)
    return model


@pytest.fixture
def source(network, tmp_path):
    folder = tmp_path / "whisper"
    network.save_pretrained(folder)
    WhisperFeatureExtractor(chunk_length=1).save_pretrained(folder)
    return str(folder)


def noise(samples, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 0.2, samples).astype(np.float32))


@torch.no_grad()
def test_states_are_those_of_transformers_where_nothing_is_missing(network, source):
    backbone, wav = SSLBackbone(source), noise(SECOND)
    feats = WhisperFeatureExtractor(chunk_length=1)(
        wav.numpy(), sampling_rate=SECOND, return_tensors="pt"
    ).input_features
    torch.testing.assert_close(backbone.network.log_mel(wav[None]), feats, atol=1e-4, rtol=0)
    expected = network.get_encoder()(feats, output_hidden_states=True)
    states = backbone.network(wav[None])
    assert len(states) == len(expected.hidden_states) == 4
    for state, theirs in zip(states[:-1], expected.hidden_states[:-1], strict=True):
        torch.testing.assert_close(state, theirs, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(states[-1], expected.last_hidden_state, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_an_utterance_has_the_embedding_that_it_has_alone(source):
    encoder = UtteranceEncoder(SSLBackbone(source), StatisticsPooling(), None).eval()
    clips = [noise(4000, 1), noise(2501, 2), noise(100, 3)]
    batch = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    together = encoder(batch, torch.tensor([len(clip) for clip in clips]) / 4000)
    for clip, embedding in zip(clips, together, strict=True):
        torch.testing.assert_close(encoder(clip[None])[0], embedding, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_is_longer_than_its_positions_is_described_in_pieces(source):
    backbone, wav = SSLBackbone(source), noise(SECOND + 4000)
    found, _ = backbone(wav[None])
    pieces = [backbone(piece[None])[0] for piece in (wav[:SECOND], wav[SECOND:])]
    assert found.shape[1] == 50 + 13
    torch.testing.assert_close(found, torch.cat(pieces, 1))


@torch.no_grad()
def test_one_layer_is_taken_alone(source):
    wav, states = noise(4000)[None], SSLBackbone(source).network(noise(4000)[None])
    for layer in range(4):
        backbone = SSLBackbone(source, layer=layer)
        assert not [weight for weight in backbone.parameters() if weight.requires_grad]
        values = states[layer].numpy()
        expected = (values - values.mean(2, keepdims=True)) / np.sqrt(values.var(2, keepdims=True) + 1e-5)
        np.testing.assert_allclose(backbone(wav)[0], expected, atol=1e-4)
        again = SSLBackbone(backbone.description, layer=layer)
        again.load_state_dict(backbone.state_dict())
        assert torch.equal(again(wav)[0], backbone(wav)[0])
    with pytest.raises(InputError, match="layer 4 is none of 0 to 3"):
        SSLBackbone(source, layer=4)


def test_fine_tuned_its_convolutions_and_positions_stay(source):
    backbone = SSLBackbone(source, freeze=False)
    backbone(noise(4000)[None])[0].square().mul(torch.randn(16)).sum().backward()
    learned = {name for name, weight in backbone.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert "layer_weights" in learned and "network.encoder.layers.0.fc1.weight" in learned
    assert not [name for name in learned if "conv" in name or "positions" in name]


def ctranslate(network, kind=np.float16):
    """Write the network as CTranslate2 does: names, shapes, types and values, query, key and value joined."""
    weights = {name: weight.detach().numpy() for name, weight in network.get_encoder().named_parameters()}
    arrays = {"encoder/num_heads": np.array(2, np.int16), "decoder/unused": np.zeros(3, kind)}

    def norm(theirs, ours):
        arrays[f"{theirs}/gamma"], arrays[f"{theirs}/beta"] = weights[f"{ours}.weight"], weights[f"{ours}.bias"]

    def linear(theirs, ours):
        arrays[f"{theirs}/weight"], arrays[f"{theirs}/bias"] = weights[f"{ours}.weight"], weights[f"{ours}.bias"]

    arrays["encoder/position_encodings/encodings"] = weights["embed_positions.weight"]
    linear("encoder/conv1", "conv1")
    linear("encoder/conv2", "conv2")
    norm("encoder/layer_norm", "layer_norm")
    for i in range(3):
        theirs, ours = f"encoder/layer_{i}", f"layers.{i}"
        norm(f"{theirs}/self_attention/layer_norm", f"{ours}.self_attn_layer_norm")
        norm(f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm")
        linear(f"{theirs}/self_attention/linear_1", f"{ours}.self_attn.out_proj")
        linear(f"{theirs}/ffn/linear_0", f"{ours}.fc1")
        linear(f"{theirs}/ffn/linear_1", f"{ours}.fc2")
        attention = f"{ours}.self_attn"
        arrays[f"{theirs}/self_attention/linear_0/weight"] = np.concatenate(
            [weights[f"{attention}.{part}_proj.weight"] for part in "qkv"]
        )
        arrays[f"{theirs}/self_attention/linear_0/bias"] = np.concatenate(
            [weights[f"{attention}.q_proj.bias"], np.zeros(16), weights[f"{attention}.v_proj.bias"]]
        )
    codes = {np.float32: 0, np.int8: 1, np.float16: 4}
    out = struct.pack("<I", 6) + struct.pack("<H", 12) + b"WhisperSpec\0" + struct.pack("<II", 3, len(arrays))
    for name, array in arrays.items():
        values = array if name.endswith("num_heads") else array.astype(kind)
        code = 2 if name.endswith("num_heads") else codes[kind]
        out += struct.pack("<H", len(name) + 1) + name.encode() + b"\0" + struct.pack("<B", values.ndim)
        out += struct.pack(f"<{values.ndim}I", *values.shape) + struct.pack("<BI", code, values.nbytes)
        out += values.tobytes()
    return out


@torch.no_grad()
@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_a_file_of_ctranslate2_makes_the_same_encoder(network, source, tmp_path, kind):
    (tmp_path / "model.bin").write_bytes(ctranslate(network, kind))
    convert_whisper(tmp_path / "model.bin", tmp_path / "converted")
    converted, wav = SSLBackbone(str(tmp_path / "converted"), layer=2), noise(4000)[None]
    torch.testing.assert_close(converted(wav)[0], SSLBackbone(source, layer=2)(wav)[0], atol=0.02, rtol=0.02)
    assert "licence: MIT" in (tmp_path / "converted" / "source.yaml").read_text()
    [training] = read_lineage(tmp_path / "converted" / "model.safetensors")  # of these weights, or refused
    assert "Whisper" in training.strategy and training.licence == "MIT"


def test_other_files_are_refused_with_a_remedy(network, tmp_path):
    content = ctranslate(network)
    files = {
        "another": b"no such file",
        "empty": b"",
        "cut": content[: len(content) // 2],
        "less": content.replace(b"layer_1/ffn/linear_1/bias", b"layer_1/ffn/linear_1/bits"),
        "quantised": ctranslate(network, np.int8),
    }
    for name, damaged in files.items():
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(InputError, match=f"{name} is no Whisper of CTranslate2 .*; give the model.bin") as caught:
            convert_whisper(tmp_path / name, tmp_path / "out")
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="cannot read"):
        convert_whisper(tmp_path / "missing", tmp_path / "out")
    assert not (tmp_path / "out").exists()
