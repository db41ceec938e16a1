"""CAM++ against a plain network without masks, that takes one utterance after the other."""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from ser_plugins.audio.fbank import KaldiFbank, MeanNorm
from ser_plugins.errors import InputError
from ser_plugins.models.batchnorm import MaskedBatchNorm
from ser_plugins.models.campplus import CAMPPlus

PUBLIC = os.environ.get("SER_PLUGINS_CAMPPLUS")  # campplus_cn_en_common.pt


@pytest.fixture(scope="module")
def whole():
    """The whole network in float64, whose batch normalisations are of any mean, deviation, weight and bias."""
    torch.manual_seed(0)
    network = CAMPPlus(block=None)
    for module in network.modules():
        if isinstance(module, MaskedBatchNorm):
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            if module.affine:
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias, std=0.3)
    return network.double().eval()


def plain(weights, feats):
    """What follows each block [T'', D], the frames that are pooled, and the embedding, of one utterance [T', 80]."""

    def norm(name, x):
        view = (1, -1) + (1,) * (x.dim() - 2)
        x = (x - weights[f"{name}.running_mean"].view(view)) / (weights[f"{name}.running_var"].view(view) + 1e-5).sqrt()
        if f"{name}.weight" in weights:
            x = x * weights[f"{name}.weight"].view(view) + weights[f"{name}.bias"].view(view)
        return x

    def conv(name, x, **options):
        run = functional.conv2d if x.dim() == 4 else functional.conv1d
        return run(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"), **options)

    x = norm("head.bn1", conv("head.conv1", feats.T[None, None], padding=1)).relu()
    for name in ("head.layer1.0", "head.layer1.1", "head.layer2.0", "head.layer2.1"):
        stride = (2, 1) if name.endswith("0") else 1
        out = norm(f"{name}.bn1", conv(f"{name}.conv1", x, stride=stride, padding=1)).relu()
        out = norm(f"{name}.bn2", conv(f"{name}.conv2", out, padding=1))
        if name.endswith("0"):
            x = norm(f"{name}.shortcut.1", conv(f"{name}.shortcut.0", x, stride=stride))
        x = (x + out).relu()
    x = norm("head.bn2", conv("head.conv2", x, stride=(2, 1), padding=1)).relu()
    x = conv("xvector.tdnn.linear", x.reshape(1, 320, -1), stride=2, padding=2)
    x = norm("xvector.tdnn.nonlinear.batchnorm", x).relu()
    found = []
    for block, layers, dilation in ((1, 12, 1), (2, 24, 2), (3, 16, 2)):
        for layer in range(layers):
            name = f"xvector.block{block}.tdnnd{layer + 1}"
            out = conv(f"{name}.linear1", norm(f"{name}.nonlinear1.batchnorm", x).relu())
            out = norm(f"{name}.nonlinear2.batchnorm", out).relu()
            segments = torch.stack([out[:, :, i // 100 * 100 :][:, :, :100].mean(2) for i in range(out.shape[2])], 2)
            gates = conv(f"{name}.cam_layer.linear1", out.mean(2, keepdim=True) + segments).relu()
            gates = conv(f"{name}.cam_layer.linear2", gates).sigmoid()
            local = conv(f"{name}.cam_layer.linear_local", out, dilation=dilation, padding=dilation)
            x = torch.cat([x, local * gates], 1)
        found.append(x[0].T)
        name = f"xvector.transit{block}"
        x = conv(f"{name}.linear", norm(f"{name}.nonlinear.batchnorm", x).relu())
    x = norm("xvector.out_nonlinear.batchnorm", x).relu()
    found.append(x[0].T)
    pooled = torch.cat([x.mean(2), x.std(2)], 1).unsqueeze(2)
    embedding = norm("xvector.dense.nonlinear.batchnorm", conv("xvector.dense.linear", pooled))
    return found, embedding[0, :, 0]


def part(whole, block):
    network = CAMPPlus(block).double().eval()
    network.load_public(whole.state_dict())
    return network


@pytest.mark.parametrize("frames", [5, 121, 430])
@torch.no_grad()
def test_descriptors_and_embedding_are_those_of_the_plain_network(whole, frames):
    feats = torch.randn(frames, 80, dtype=torch.float64)
    expected, embedding = plain(whole.state_dict(), feats)
    for block, descriptors in zip((1, 2, 3, None), expected, strict=True):
        network = part(whole, block)
        found, lengths = network(feats[None])
        assert lengths.tolist() == [1] and descriptors.std() > 0.1
        assert found.shape == (1, -(-frames // 2), network.output_size)
        torch.testing.assert_close(found[0], descriptors, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(whole.embed(feats[None])[0], embedding, atol=1e-9, rtol=1e-9)


@settings(deadline=None, max_examples=8)
@given(
    frames=st.lists(st.integers(1, 250), min_size=1, max_size=3),
    beyond=st.integers(0, 260),
    garbage=st.sampled_from([0.0, -5.0, 1e6, float("inf"), float("nan")]),
)
@torch.no_grad()
def test_garbage_in_padded_frames_reaches_no_descriptor(whole, frames, beyond, garbage):
    network, total = part(whole, 2), max(frames) + beyond
    batch = torch.full((len(frames), total, 80), garbage, dtype=torch.float64)
    for row, n in zip(batch, frames, strict=True):
        row[:n] = torch.randn(n, 80)
    found, lengths = network(batch, torch.tensor(frames) / total)
    assert (lengths * found.shape[1]).round().tolist() == [-(-n // 2) for n in frames]
    for row, n, descriptors in zip(batch, frames, found, strict=True):
        alone = network(row[None, :n])[0][0]
        torch.testing.assert_close(descriptors[: len(alone)], alone, atol=1e-9, rtol=1e-9)
        assert not descriptors[len(alone) :].any()


@torch.no_grad()
def test_an_utterance_padded_in_a_batch_has_the_embedding_it_has_alone(whole):
    wavs, sizes = 0.1 * torch.randn(3, 64000), [64000, 33333, 900]
    for wav, size in zip(wavs, sizes, strict=True):
        wav[size:] = 0
    fbank, norm, lengths = KaldiFbank(), MeanNorm(), torch.tensor(sizes) / 64000
    together = whole.embed(norm(fbank(wavs), lengths).double(), lengths)
    for wav, size, found in zip(wavs, sizes, together, strict=True):
        alone = whole.embed(norm(fbank(wav[None, :size])).double())[0]
        torch.testing.assert_close(found, alone, atol=1e-5, rtol=0)


def test_training_sees_no_padding(whole):
    network = part(whole, 1).train()
    feats = torch.randn(3, 41, 80, dtype=torch.float64)
    padded = torch.cat([feats, torch.randn(3, 33, 80, dtype=torch.float64)], 1).requires_grad_()
    found, _ = network(padded, torch.full((3,), 41 / 74))
    torch.testing.assert_close(found[:, :21], network(feats)[0], atol=1e-7, rtol=0)
    found.square().sum().backward()
    assert padded.grad[:, :41].any(2).all() and not padded.grad[:, 41:].any()


def test_a_frozen_head_learns_nothing_and_the_rest_does():
    network = CAMPPlus(block=1, freeze_head=True).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    network(torch.randn(3, 60, 80))[0].square().sum().backward()
    optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(name.startswith("head.") for name in changed)
    learned = {name for name, _ in network.named_parameters() if name.startswith("xvector.")}
    assert learned <= changed and "xvector.tdnn.nonlinear.batchnorm.running_mean" in changed


def test_what_is_no_campplus_is_refused(whole):
    state = whole.state_dict()
    network = CAMPPlus(2)
    with pytest.raises(InputError, match=r"head\.bn1\.bias"):
        network.load_public({name: value for name, value in state.items() if name != "head.bn1.bias"})
    with pytest.raises(InputError, match="other"):
        network.load_public({**state, "other": torch.zeros(1)})
    with pytest.raises(InputError, match=r"head\.conv1\.weight"):
        network.load_public({**state, "head.conv1.weight": torch.zeros(32, 1, 5, 5)})
    with pytest.raises(InputError, match="80"):
        network(torch.randn(1, 50, 257))
    with pytest.raises(ValueError, match="block"):
        CAMPPlus(4)
    with pytest.raises(ValueError, match="None"):
        network.embed(torch.randn(1, 50, 80))


@pytest.mark.skipif(PUBLIC is None, reason="SER_PLUGINS_CAMPPLUS does not name the public weights")
@torch.no_grad()
def test_the_public_weights_load_strictly():
    weights = torch.load(PUBLIC, weights_only=True)
    network = CAMPPlus(block=None).eval()
    network.load_state_dict(weights)
    feats = MeanNorm()(KaldiFbank()(0.1 * torch.randn(1, 48000)))
    _, expected = plain(weights, feats[0])
    torch.testing.assert_close(network.embed(feats)[0], expected, atol=1e-4, rtol=1e-4)
