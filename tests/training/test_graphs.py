"""Passes captured as CUDA graphs do what the encoder does."""

import copy
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from ser_plugins import GhostVLAD, MeanPooling, SEResNet34, ThinResNet34, UtteranceEncoder
from ser_plugins.models.ssl import SSLBackbone
from ser_plugins.training import graphs
from ser_plugins.training.graphs import EncoderGraphs

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")


def small_encoder():
    return UtteranceEncoder(SEResNet34((4, 8, 8, 16), (1, 1, 1, 1), n_bins=40), GhostVLAD(16), embedding_size=8)


def test_what_looks_at_values_is_not_captured():
    assert small_encoder().capturable
    assert UtteranceEncoder(ThinResNet34(), MeanPooling(3584)).capturable
    own = MeanPooling(16)
    own.capturable = False
    assert not UtteranceEncoder(SEResNet34((4, 8, 8, 16)), own).capturable
    assert not getattr(SSLBackbone, "capturable", False)


@pytest.fixture
def captured(monkeypatch):
    """What is captured instead of a GPU's graphs: the passes themselves, tried three times before."""
    found = []

    def make(passes, inputs, **_):
        assert not torch.is_autocast_enabled("cuda")
        for _ in range(3):
            passes(*inputs)
        found.append(tuple(inputs[0].shape))
        return passes

    monkeypatch.setattr(graphs, "usable", lambda *_: True)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", make)
    return found


def test_each_shape_without_padding_is_captured_once(captured, monkeypatch):
    monkeypatch.setattr(graphs, "MOST_SHAPES", 2)
    torch.manual_seed(0)
    usual = small_encoder().train()
    encoder = copy.deepcopy(usual)
    passes = partial(EncoderGraphs(), encoder)
    for step, frames in enumerate([48, 64, 48, 80, 64, 48]):
        feats, lengths = torch.randn(6, frames, 40), torch.ones(6)
        if step == 2:
            lengths[1] = 0.5
        if step == 4:
            feats[2, 40:] = 0
        torch.testing.assert_close(passes(feats, lengths), usual(feats, lengths), rtol=0, atol=0)
        assert captured == [(6, 48, 40), (6, 64, 40)][: step + 1]  # not the third, nor what is padded
    for one, other in zip(usual.buffers(), encoder.buffers(), strict=True):  # the trials left no trace
        torch.testing.assert_close(other, one, rtol=0, atol=0)


def test_features_that_are_trained_have_their_gradient(captured):
    passes, feats = partial(EncoderGraphs(), small_encoder().train()), torch.randn(6, 48, 40, requires_grad=True)
    passes(feats, torch.ones(6)).square().sum().backward()
    assert feats.grad is not None and not captured


@pytest.mark.parametrize(
    ("device", "encoder", "expected"),
    [
        ("cuda", small_encoder(), True),
        ("cpu", small_encoder(), False),
        ("cuda", torch.nn.Linear(4, 4), False),
        ("cuda", torch.compile(small_encoder()), False),
    ],
)
def test_where_graphs_are_used(device, encoder, expected):
    feats = SimpleNamespace(device=torch.device(device))
    assert graphs.usable(encoder, feats) == expected


@needs_gpu
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_graphs_do_what_the_encoder_does(dtype, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(graphs, "MOST_SHAPES", 2)
    torch.manual_seed(0)
    usual = small_encoder().cuda().train()
    graphed = copy.deepcopy(usual)
    memory = EncoderGraphs()
    passes = partial(memory, graphed)
    optimizer = torch.optim.SGD(usual.parameters(), 0.05)
    close = {"rtol": 1e-3, "atol": 1e-4} if dtype is None else {"rtol": 0.05, "atol": 0.05}
    most = 1e-3 if dtype is None else 0.1  # of the gradient's length
    for step, frames in enumerate([48, 64, 48, 80, 64, 48, 64, 80]):
        feats = torch.randn(6, frames, 40, device="cuda")
        if step == 4:
            feats[2, 40:] = 0  # padding
        lengths, target = torch.ones(6, device="cuda"), torch.randn(6, 1, 8, device="cuda")
        found = []
        for call in (usual, passes):
            with torch.autocast("cuda", dtype, enabled=dtype is not None):
                embeddings = call(feats, lengths)
                (embeddings * target).sum().backward()
            found.append(embeddings.detach().clone())
        torch.testing.assert_close(*found, **close)
        ours, theirs = (torch.cat([w.grad.flatten() for w in one.parameters()]) for one in (graphed, usual))
        assert (ours - theirs).norm() < most * theirs.norm()
        if dtype is None:  # in bfloat16 single ones, sums that cancel, are little else than rounding
            for (name, one), other in zip(usual.named_parameters(), graphed.parameters(), strict=True):
                scale = one.grad.abs().max().clamp(min=1e-3)
                torch.testing.assert_close(other.grad / scale, one.grad / scale, **close, msg=name)
        for one, other in zip(usual.buffers(), graphed.buffers(), strict=True):
            torch.testing.assert_close(other, one, **close)
        optimizer.step()
        graphed.load_state_dict(usual.state_dict())
        for encoder in (usual, graphed):
            encoder.zero_grad(set_to_none=True)
    assert len(memory.passes) == 2  # not the third, nor what is padded
    assert usual.norm.num_batches_tracked == 8
