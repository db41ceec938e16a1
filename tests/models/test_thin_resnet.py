"""The thin ResNet-34 and its pooling: padding, short utterances, formula. The trunk itself: tests/hub/test_vgg.py."""

import pytest
import torch

from ser_plugins import ProjectedGhostVLAD, Spectrogram, SpectrogramNorm, ThinResNet34, UtteranceEncoder
from ser_plugins.models.batchnorm import MaskedBatchNorm


@pytest.fixture(scope="module")
def encoder():
    """An encoder whose batch normalisations are of any mean, deviation, weight and bias."""
    torch.manual_seed(0)
    encoder = UtteranceEncoder(ThinResNet34(), ProjectedGhostVLAD(3584))
    for module in encoder.modules():
        if isinstance(module, MaskedBatchNorm):
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.3)
    torch.nn.init.normal_(encoder.pooling.projection.bias)
    return encoder.eval()


@pytest.mark.parametrize("garbage", [0.0, 1e6, float("nan")])
@pytest.mark.parametrize("beyond", [0, 1, 30])
@torch.no_grad()
def test_garbage_in_padded_frames_reaches_no_descriptor(encoder, garbage, beyond):
    frames, counts = [66, 65, 50, 35, 17, 3, 2, 1], [5, 4, 4, 3, 1, 1, 1, 1]
    batch = torch.full((len(frames), 66 + beyond, 257), garbage)
    for row, n in zip(batch, frames, strict=True):
        row[:n] = torch.randn(n, 257)
    found, lengths = encoder.backbone(batch, torch.tensor(frames) / batch.shape[1])
    assert (lengths * found.shape[1]).round().tolist() == counts
    vectors = encoder.pooling(found, lengths)
    for row, n, count, descriptors, vector in zip(batch, frames, counts, found, vectors, strict=True):
        alone, length = encoder.backbone(row[None, :n])
        assert alone.shape == (1, count, 3584) and length == 1 and alone.any()
        torch.testing.assert_close(descriptors[:count], alone[0], atol=1e-5, rtol=1e-5)
        assert not descriptors[count:].any()
        torch.testing.assert_close(vector, encoder.pooling(alone)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("samples", [3201, 160, 1])
@torch.no_grad()
def test_an_utterance_padded_in_a_batch_has_the_embedding_it_has_alone(encoder, samples):
    spectrogram, norm = Spectrogram(win_length=25.0, window="hann"), SpectrogramNorm("frame")

    def embed(wavs, lengths):
        return encoder(norm(spectrogram(wavs), lengths), lengths)

    short, long = 0.1 * torch.randn(samples), torch.randn(8077)
    batch = torch.nn.utils.rnn.pad_sequence([short, long], batch_first=True)
    together = embed(batch, torch.tensor([samples / 8077, 1]))
    torch.testing.assert_close(together[:1], embed(short[None], torch.ones(1)), atol=1e-5, rtol=0)
    torch.testing.assert_close(together[1:], embed(long[None], torch.ones(1)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames", [32, 33])
def test_training_sees_no_padding(frames):
    torch.manual_seed(0)
    encoder = UtteranceEncoder(ThinResNet34(), ProjectedGhostVLAD(3584)).double().train()
    feats = torch.randn(3, frames, 257, dtype=torch.float64)
    padded = torch.cat([feats, torch.randn(3, 47, 257, dtype=torch.float64)], 1).requires_grad_()
    found = encoder(padded, torch.full((3,), frames / padded.shape[1]))
    torch.testing.assert_close(found, encoder(feats), atol=1e-6, rtol=0)
    found.sum().backward()
    assert padded.grad[:, : frames // 2 * 2].any(2).all() and not padded.grad[:, frames:].any()


@torch.no_grad()
def test_pooling_is_the_formula():
    layer, x = ProjectedGhostVLAD(12, 5, clusters=3, ghost_clusters=1).double(), torch.randn(7, 12).double()
    torch.nn.init.normal_(layer.assignment.bias)
    torch.nn.init.normal_(layer.projection.bias)
    expected = torch.zeros(3, 5, dtype=torch.float64)
    for frame in x:
        scores = (layer.assignment.weight @ frame + layer.assignment.bias).exp()
        projected = (layer.projection.weight @ frame + layer.projection.bias).clamp(min=0)
        for k in range(3):
            expected[k] += scores[k] / scores.sum() * (projected - layer.centres[k])
    expected = torch.cat([row / row.norm() for row in expected])
    torch.testing.assert_close(layer(x[None])[0], expected)
    assert layer.output_size == 15
    padded = torch.cat([x, torch.full((3, 12), 9.0, dtype=torch.float64)])
    torch.testing.assert_close(layer(padded[None], torch.tensor([0.7]))[0], expected)


@torch.no_grad()
def test_autocast_changes_nothing():
    layer, x = ProjectedGhostVLAD(12, 5), torch.randn(2, 7, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = layer(x)
    assert cast.dtype == torch.float32 and torch.equal(cast, layer(x))


def test_depth_and_bins():
    backbone = ThinResNet34()
    convolutions = [layer for layer in backbone.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert len(convolutions) - sum(block.shortcut is not None for block in backbone.blocks) == 34
    with pytest.raises(ValueError, match="257"):
        backbone(torch.randn(2, 40, 201))
