"""SE-ResNet-34 against a plain network without masks, that takes one utterance after the other."""

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ser_plugins import GhostVLAD, UtteranceEncoder
from ser_plugins.models.batchnorm import MaskedBatchNorm
from ser_plugins.models.se_resnet import SEResNet34

CHANNELS = (8, 8, 16, 24)


def make(channels=CHANNELS, **options):
    """A network in float64 whose batch normalisations are of any mean, deviation, weight and bias."""
    torch.manual_seed(0)
    network = SEResNet34(channels, **options)
    for module in network.modules():
        if isinstance(module, MaskedBatchNorm):
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            module.num_batches_tracked.fill_(100)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.3)
    return network.double().eval()


def plain(weights, utterances, blocks=(3, 4, 6, 3), training=False, pooled=True):
    """Descriptors [T'', D] of each utterance [T, F]; in training also mean and variance of each normalisation."""
    statistics = {}

    def conv(name, xs, stride=1, padding=0):
        return [functional.conv2d(x[None], weights[f"{name}.weight"], None, stride, padding)[0] for x in xs]

    def norm(name, xs):
        values = torch.cat([x.flatten(1) for x in xs], dim=1)
        mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        if training:
            mean, var = values.mean(1), values.var(1, unbiased=False)
            statistics[name] = mean, values.var(1)
        gain, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return [((x.movedim(0, -1) - mean) / (var + 1e-5).sqrt() * gain + bias).movedim(-1, 0) for x in xs]

    def excite(name, x):
        hidden = (weights[f"{name}.reduce.weight"] @ x.mean((1, 2)) + weights[f"{name}.reduce.bias"]).relu()
        gates = (weights[f"{name}.expand.weight"] @ hidden + weights[f"{name}.expand.bias"]).sigmoid()
        return x * gates[:, None, None]

    def relu(xs):
        return [x.relu() for x in xs]

    xs = relu(norm("stem_bn", conv("stem", [x[None] for x in utterances], stride=(2, 4) if pooled else 2, padding=3)))
    xs = [functional.max_pool2d(x[None], 3, 2, 1)[0] for x in xs] if pooled else xs
    strides = [1, 2, 2, (1, 2) if pooled else 2]
    number = 0
    for stage, count in enumerate(blocks):
        for block in range(count):
            name = f"stages.{number}"
            first = stage > 0 and block == 0
            out = relu(norm(f"{name}.bn1", conv(f"{name}.conv1", xs, stride=strides[stage] if first else 1, padding=1)))
            out = norm(f"{name}.bn2", conv(f"{name}.conv2", out, padding=1))
            if first:
                xs = norm(f"{name}.shortcut_bn", conv(f"{name}.shortcut", xs, stride=strides[stage]))
            xs = relu([excite(f"{name}.se", o) + x for o, x in zip(out, xs, strict=True)])
            number += 1
    assert weights["collapse.weight"].shape[2:] == (1, xs[0].shape[2])
    xs = relu(norm("collapse_bn", conv("collapse", xs)))
    return [x.squeeze(2).T for x in xs], statistics


def padded_batch(frames, total, garbage):
    utterances = [torch.randn(n, 257, dtype=torch.float64) for n in frames]
    batch = torch.full((len(frames), total, 257), garbage, dtype=torch.float64)
    for row, utterance in zip(batch, utterances, strict=True):
        row[: len(utterance)] = utterance
    return utterances, batch, torch.tensor(frames) / total


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("channels", [CHANNELS, (4, 4, 8, 8), (16, 32, 64, 128)])
@torch.no_grad()
def test_descriptors_are_those_of_the_plain_network(channels, pooled):
    network = make(channels, pooled=pooled)
    utterance = torch.randn(57, 257, dtype=torch.float64)
    (expected,), _ = plain(network.state_dict(), [utterance], pooled=pooled)
    found, lengths = network(utterance[None])
    assert expected.std() > 0.1
    assert lengths.tolist() == [1]
    torch.testing.assert_close(found[0], expected, atol=1e-9, rtol=1e-9)


@settings(deadline=None, max_examples=30)
@given(
    frames=st.lists(st.integers(1, 70), min_size=1, max_size=3),
    beyond=st.integers(0, 40),
    garbage=st.sampled_from([0.0, -5.0, 1e6, math.inf, math.nan]),
    pooled=st.booleans(),
)
@torch.no_grad()
def test_garbage_in_padded_frames_reaches_no_descriptor(frames, beyond, garbage, pooled):
    network = make(pooled=pooled)
    utterances, batch, lengths = padded_batch(frames, max(frames) + beyond, garbage)
    expected, _ = plain(network.state_dict(), utterances, pooled=pooled)
    found, ends = network(batch, lengths)
    assert (ends * found.shape[1]).round().tolist() == [math.ceil(n / 16) for n in frames]
    assert found.shape[1:] == (math.ceil(batch.shape[1] / 16), CHANNELS[-1])
    for descriptors, alone in zip(found, expected, strict=True):
        torch.testing.assert_close(descriptors[: len(alone)], alone, atol=1e-9, rtol=1e-9)
        assert not descriptors[len(alone) :].any()


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize(("frames", "total"), [([70, 33, 16], 70), ([70, 33, 16], 96), ([40, 40], 64), ([40, 40], 40)])
def test_training_is_that_of_the_plain_network(frames, total, pooled):
    """Outputs, gradients and running statistics are those of the frames that are not padded."""
    network = make(pooled=pooled)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    utterances, batch, lengths = padded_batch(frames, total, 9.0)
    expected, statistics = plain(before, utterances, training=True, pooled=pooled)
    found, _ = network.train()(batch.requires_grad_(), lengths)
    for descriptors, alone in zip(found, expected, strict=True):
        torch.testing.assert_close(descriptors[: len(alone)], alone, atol=1e-7, rtol=1e-7)
        assert not descriptors[len(alone) :].any()
    for name, (mean, var) in statistics.items():
        norm = network.get_submodule(name)
        torch.testing.assert_close(norm.running_mean, 0.9 * before[f"{name}.running_mean"] + 0.1 * mean)
        torch.testing.assert_close(norm.running_var, 0.9 * before[f"{name}.running_var"] + 0.1 * var)
    assert len(statistics) == sum(isinstance(module, MaskedBatchNorm) for module in network.modules())
    found.square().sum().backward()
    for gradient, n in zip(batch.grad, frames, strict=True):
        assert gradient[:n].abs().sum(1).all() and not gradient[n:].any()


@torch.no_grad()
def test_blank_frames_at_the_end_are_padding_without_lengths():
    network = make()
    utterances, batch, lengths = padded_batch([40, 23], 64, 0.0)
    torch.testing.assert_close(network(batch), network(batch, lengths))
    torch.testing.assert_close(network(batch)[0][1, :2], network(utterances[1][None])[0][0], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("channels", [(4, 4, 8, 8), (8, 16, 24, 40)])
def test_channels_are_those_of_the_list(channels):
    network = SEResNet34(list(channels), n_bins=65, blocks=[1, 2, 1, 1], descriptor_size=5)
    widths = [block.conv2.weight.shape[0] for block in network.stages]
    assert widths == [channels[0], channels[1], channels[1], channels[2], channels[3]]
    assert network.stem.weight.shape == (channels[0], 1, 7, 7)
    for block, width in zip(network.stages, widths, strict=True):
        assert block.se.reduce.weight.shape == (max(1, width // 8), width)
    assert network.output_size == 5 and network(torch.randn(2, 20, 65))[0].shape == (2, 2, 5)
    assert SEResNet34(channels).output_size == channels[-1]


def test_three_stages_are_refused():
    with pytest.raises(ValueError, match="four"):
        SEResNet34([8, 8, 16])
    with pytest.raises(ValueError, match="four"):
        SEResNet34(blocks=[3, 4, 6])


@torch.no_grad()
def test_without_reduction_it_is_the_network_whose_gates_are_open():
    torch.manual_seed(0)
    gated, plain = SEResNet34((8, 8, 8, 8)).eval(), SEResNet34((8, 8, 8, 8), reduction=None).eval()
    report = plain.load_state_dict(gated.state_dict(), strict=False)
    assert not report.missing_keys and all(".se." in name for name in report.unexpected_keys)
    for block in gated.stages:
        block.se.expand.weight.zero_()
        block.se.expand.bias.fill_(100.0)
    feats, lengths = torch.randn(2, 60, 257), torch.tensor([1.0, 0.5])
    torch.testing.assert_close(plain(feats, lengths), gated(feats, lengths))


def test_few_channels_on_few_bins_do_not_end_the_process():
    """The backward pass of a convolution with one tap and a stride, of few channels, may write where it must not."""
    code = """
import torch
from ser_plugins.models.se_resnet import SEBasicBlock
block = SEBasicBlock(4, 8, (2, 2), 16).to(memory_format=torch.channels_last)
for frames in range(30, 130):
    x = torch.randn(32, 4, frames, 40).contiguous(memory_format=torch.channels_last)
    block(x.requires_grad_(), None, None).square().mean().backward()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("channels", [(16, 16, 16, 16), (4, 4, 8, 8)])
@torch.no_grad()
def test_a_network_is_exported_with_a_free_length(channels):
    """Down to a single frame, and with few channels, whose shortcuts are others."""
    network = UtteranceEncoder(SEResNet34(channels, (1, 1, 1, 1), n_bins=40), GhostVLAD(), 6).eval()
    batch, frames = torch.export.Dim("batch", min=1, max=9), torch.export.Dim("frames", min=1, max=999)
    shapes = {0: batch, 1: frames}, {0: batch}
    program = torch.export.export(network, (torch.rand(2, 50, 40), torch.ones(2)), dynamic_shapes=shapes).module()
    for rows, count in ((1, 1), (3, 5), (2, 16), (1, 17), (2, 200)):
        feats, lengths = torch.rand(rows, count, 40), torch.linspace(0.5, 1, rows)
        torch.testing.assert_close(program(feats, lengths), network(feats, lengths), atol=1e-5, rtol=1e-4)


def test_a_training_step_of_two_seconds_takes_at_most_two_gflop():
    network = SEResNet34(descriptor_size=192)
    with FlopCounterMode(display=False) as counter:
        network(torch.randn(2, 201, 257))[0].square().sum().backward()
    assert counter.get_total_flops() / 2 < 2e9


def test_the_network_without_pooling_takes_the_weights_of_earlier_checkpoints():
    state = SEResNet34((16, 32, 64, 128), pooled=False).state_dict()
    assert state["stem.weight"].shape == (16, 1, 7, 7) and state["collapse.weight"].shape == (128, 128, 1, 17)
    assert len(state) == len(SEResNet34().state_dict())
