"""Passes captured as CUDA graphs do what the encoder does."""

import copy

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
    assert not UtteranceEncoder(SEResNet34(), own).capturable
    assert not getattr(SSLBackbone, "capturable", False)


@needs_gpu
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_graphs_do_what_the_encoder_does(dtype, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(graphs, "MOST_SHAPES", 2)
    torch.manual_seed(0)
    usual = small_encoder().cuda().train()
    graphed = copy.deepcopy(usual)
    passes = EncoderGraphs(graphed)
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
        for one, other in zip(usual.buffers(), graphed.buffers(), strict=True):
            torch.testing.assert_close(other, one, **close)
        optimizer.step()
        graphed.load_state_dict(usual.state_dict())
        for encoder in (usual, graphed):
            encoder.zero_grad(set_to_none=True)
    assert len(passes.passes) == 2  # not the third, nor what is padded
    assert usual.norm.num_batches_tracked == 8
