"""What holds for GhostVLAD whatever the descriptors, and the formula of NetVLAD."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_plugins.models.ghostvlad import GhostVLAD

any_layer = settings(deadline=None, max_examples=60)
sizes = {"size": st.integers(1, 12), "clusters": st.integers(1, 8), "ghosts": st.integers(0, 3)}
frames = st.integers(1, 30)


def make(size, clusters, ghosts):
    torch.manual_seed(size + 100 * clusters + 1000 * ghosts)
    layer = GhostVLAD(size, clusters, ghosts).double()
    torch.nn.init.normal_(layer.assignment.bias)
    return layer


def softmax(scores):
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


@any_layer
@given(**sizes, frames=frames, seed=st.integers(0, 99))
@torch.no_grad()
def test_order_of_frames_does_not_count(size, clusters, ghosts, frames, seed):
    layer = make(size, clusters, ghosts)
    x = torch.randn(2, frames, size, dtype=torch.float64)
    order = torch.randperm(frames, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(layer(x[:, order]), layer(x), atol=1e-8, rtol=0)


@any_layer
@given(**sizes, frames=frames, padding=st.integers(0, 30), garbage=st.sampled_from([0.0, -3.0, 1e4]))
@torch.no_grad()
def test_padding_does_not_count(size, clusters, ghosts, frames, padding, garbage):
    layer = make(size, clusters, ghosts)
    x = torch.randn(2, frames, size, dtype=torch.float64)
    longer = torch.cat([x, torch.full((2, padding, size), garbage, dtype=torch.float64)], dim=1)
    lengths = torch.tensor([frames / (frames + padding)] * 2)
    torch.testing.assert_close(layer(longer, lengths), layer(x), atol=1e-8, rtol=0)


@any_layer
@given(**sizes, frames=frames)
@torch.no_grad()
def test_length_is_one_and_equal_in_each_cluster(size, clusters, ghosts, frames):
    layer = make(size, clusters, ghosts)
    out = layer(torch.randn(3, frames, size, dtype=torch.float64))
    assert out.shape == (3, clusters * size) == (3, layer.output_size)
    assert out.norm(dim=1).tolist() == pytest.approx([1] * 3)
    parts = out.reshape(3, clusters, size).norm(dim=2)
    assert parts.flatten().tolist() == pytest.approx([1 / math.sqrt(clusters)] * (3 * clusters))


@any_layer
@given(**sizes, frames=frames)
@torch.no_grad()
def test_it_is_netvlad_with_the_shares_of_the_ghosts_left_out(size, clusters, ghosts, frames):
    layer = make(size, clusters, ghosts)
    x = torch.randn(frames, size, dtype=torch.float64)
    weight, bias, centres = (p.numpy() for p in (layer.assignment.weight, layer.assignment.bias, layer.centres))
    shares = softmax(x.numpy() @ weight.T + bias)
    assert shares.shape == (frames, clusters + ghosts)
    residuals = x.numpy()[:, None] - centres
    vlad = (shares[:, :clusters, None] * residuals).sum(0)
    vlad /= np.linalg.norm(vlad, axis=1, keepdims=True)
    np.testing.assert_allclose(layer(x[None])[0], vlad.flatten() / np.linalg.norm(vlad), atol=1e-8)


@torch.no_grad()
def test_autocast_changes_nothing():
    layer, x = GhostVLAD(8), torch.randn(2, 9, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = layer(x)
    assert cast.dtype == torch.float32 and torch.equal(cast, layer(x))


@pytest.mark.parametrize(("clusters", "ghosts"), [(0, 2), (-1, 0), (8, -1)])
def test_bad_sizes_are_refused(clusters, ghosts):
    with pytest.raises(ValueError, match=f"got {clusters} and {ghosts}"):
        GhostVLAD(16, clusters, ghosts)
