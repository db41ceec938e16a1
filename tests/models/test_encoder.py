"""Padding, shapes and formulas of the encoder."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch.nn import functional

from ser_plugins.audio.spectrogram import Spectrogram, SpectrogramNorm
from ser_plugins.models.batchnorm import MaskedBatchNorm
from ser_plugins.models.encoder import MarginClassifier, UtteranceEncoder, center_by_speaker
from ser_plugins.models.ghostvlad import GhostVLAD, ProjectedGhostVLAD
from ser_plugins.models.mean_pooling import MeanPooling
from ser_plugins.models.se_resnet import SEResNet34


def make_encoder() -> UtteranceEncoder:
    torch.manual_seed(0)
    encoder = UtteranceEncoder(SEResNet34(), GhostVLAD(128))
    for module in encoder.modules():
        if isinstance(module, MaskedBatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
    return encoder.eval()


@pytest.mark.parametrize("axis", ["utterance", "bin", "frame"])
@pytest.mark.parametrize("samples", [3200, 8000, 16001, 15999, 16160])
@pytest.mark.parametrize("log", [False, True])
@torch.no_grad()
def test_padding_changes_nothing(axis: str, samples: int, log: bool) -> None:
    spectrogram, norm, encoder = Spectrogram(log=log), SpectrogramNorm(axis), make_encoder()

    def embed(wavs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return encoder(norm(spectrogram(wavs), lengths), lengths)

    short, long = torch.randn(samples) * 0.1, torch.randn(5 * samples + 77)
    batch = torch.nn.utils.rnn.pad_sequence([short, long], batch_first=True)
    together = embed(batch, torch.tensor([len(short), len(long)]) / len(long))
    torch.testing.assert_close(together[:1], embed(short[None], torch.ones(1)), atol=1e-5, rtol=0)
    torch.testing.assert_close(together[1:], embed(long[None], torch.ones(1)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", [{"speaker_normalization": "features+embeddings"}, {"speaker_centred": True}])
@torch.no_grad()
def test_embeddings_that_are_normalised_by_speaker_have_no_bias(mode: dict[str, Any]) -> None:
    plain = make_encoder()
    centred = UtteranceEncoder(SEResNet34(), GhostVLAD(128), **mode).eval()
    centred.load_state_dict(plain.state_dict())
    feats = torch.randn(2, 64, 257)
    assert plain.norm.bias.abs().max() > 0
    torch.testing.assert_close(centred(feats), plain(feats) - plain.norm.bias)


def test_each_embedding_loses_the_mean_of_its_speaker() -> None:
    embeddings, speakers = torch.randn(5, 6), [7, 2, 7, 7, 2]
    expected = []
    for one, speaker in zip(embeddings, speakers, strict=True):
        own = [other for other, name in zip(embeddings, speakers, strict=True) if name == speaker]
        expected.append(one - sum(own) / len(own))
    torch.testing.assert_close(center_by_speaker(embeddings, torch.tensor(speakers)), torch.stack(expected))


@pytest.mark.parametrize("compiled", [False, True])
def test_masked_batch_norm_is_batch_norm_of_the_valid_frames(compiled: bool) -> None:
    torch.manual_seed(0)
    x, frames = torch.randn(3, 4, 7, 5, requires_grad=True), torch.tensor([7, 4, 1])
    mask = (torch.arange(7) < frames[:, None])[:, None, :, None]
    masked, plain = MaskedBatchNorm(4), torch.nn.BatchNorm1d(4)
    for norm in (masked, plain):
        norm.weight.data, norm.bias.data = torch.tensor([0.5, 1.0, 2.0, -1.0]), torch.arange(4.0)

    def flat(image: torch.Tensor) -> torch.Tensor:
        return torch.cat([image[i, :, :n].flatten(1).T for i, n in enumerate(frames.tolist())])

    expected = plain(flat(x))
    out = (torch.compile(masked, backend="aot_eager") if compiled else masked)(x, mask)
    got = flat(out)
    weights = torch.randn_like(expected)
    gradients = [
        torch.autograd.grad((result * weights).sum(), [x, norm.weight, norm.bias])
        for result, norm in ((got, masked), (expected, plain))
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert (gradients[0][0] * ~mask).abs().max() == 0
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(masked.running_var, plain.running_var)
    torch.testing.assert_close(masked.running_mean, plain.running_mean)
    assert (out * ~mask).abs().max() == 0


@pytest.mark.parametrize("pooling", [GhostVLAD, MeanPooling, partial(ProjectedGhostVLAD, projected_size=6)])
def test_the_size_of_a_pooling_is_that_of_the_backbone(pooling: Callable[..., torch.nn.Module]) -> None:
    """As where it is given: the same weights, the same names."""
    encoders = []
    for size in ((), (16,)):
        torch.manual_seed(0)
        encoders.append(UtteranceEncoder(SEResNet34((8, 8, 8, 16), (1, 1, 1, 1)), pooling(*size), 12))
    derived, given = (encoder.state_dict() for encoder in encoders)
    assert list(derived) == list(given)
    assert all(torch.equal(one, other) for one, other in zip(derived.values(), given.values(), strict=True))
    assert encoders[0].pooling.input_size == 16 and encoders[0].output_size == 12


def test_sizes_that_differ_are_refused_at_construction() -> None:
    with pytest.raises(ValueError, match=r"SEResNet34 gives descriptors of 128 .* GhostVLAD takes 64; leave its"):
        UtteranceEncoder(SEResNet34(), GhostVLAD(64))
    with pytest.raises(ValueError, match="Flatten has no output_size; give GhostVLAD its input_size"):
        UtteranceEncoder(torch.nn.Flatten(), GhostVLAD())
    UtteranceEncoder(torch.nn.Flatten(), GhostVLAD(64))
    with pytest.raises(ValueError, match="GhostVLAD has no input_size; give it"):
        GhostVLAD()(torch.randn(1, 3, 8))


@torch.no_grad()
def test_a_dynamically_quantised_encoder_runs() -> None:
    encoder, feats = make_encoder(), torch.randn(2, 40, 257)
    linear = {torch.nn.Linear}
    quantised = torch.ao.quantization.quantize_dynamic(encoder, linear, dtype=torch.qint8)
    assert not isinstance(quantised.embedding, torch.nn.Linear)
    assert torch.cosine_similarity(quantised(feats), encoder(feats), dim=-1).min() > 0.99


def test_training_statistics_see_no_padding() -> None:
    torch.manual_seed(0)
    encoder = UtteranceEncoder(SEResNet34(), GhostVLAD(128)).train()
    feats = torch.randn(4, 96, 257)
    padded = torch.cat([feats, torch.randn(4, 160, 257)], dim=1)
    lengths = torch.full((4,), 96 / 256)
    torch.testing.assert_close(encoder(padded, lengths), encoder(feats), atol=2e-4, rtol=1e-3)


def vlad_by_loops(layer: GhostVLAD, descriptors: torch.Tensor) -> torch.Tensor:
    rows, w_k, b_k = [], layer.assignment.weight, layer.assignment.bias
    for p in descriptors.double():
        scores = [[float(w @ x + b) for w, b in zip(w_k, b_k, strict=True)] for x in p.float()]
        V = torch.zeros(layer.clusters, p.shape[1], dtype=torch.double)
        for x, score in zip(p, scores, strict=True):
            share = torch.tensor(score, dtype=torch.double).exp()
            for k in range(layer.clusters):
                V[k] += share[k] / share.sum() * (x - layer.centres[k].double())
        V = torch.stack([v / v.norm() for v in V]).flatten()
        rows.append(V / V.norm())
    return torch.stack(rows)


@pytest.mark.parametrize("ghosts", [0, 2])
@torch.no_grad()
def test_ghostvlad_is_the_formula(ghosts: int) -> None:
    layer = GhostVLAD(16, clusters=3, ghost_clusters=ghosts)
    descriptors = torch.randn(2, 5, 16)
    torch.testing.assert_close(layer(descriptors).double(), vlad_by_loops(layer, descriptors), atol=1e-5, rtol=0)
    alone = layer(descriptors[:, :3])
    torch.testing.assert_close(layer(descriptors, torch.tensor([0.6, 0.6])), alone)


def test_netvlad_is_ghostvlad_whose_ghosts_attract_nothing() -> None:
    ghost, net = GhostVLAD(8, 3, 2), GhostVLAD(8, 3, 0)
    with torch.no_grad():
        ghost.assignment.bias[3:] = -1e9
        net.assignment.weight.copy_(ghost.assignment.weight[:3])
        net.centres.copy_(ghost.centres)
    x = torch.randn(2, 6, 8)
    torch.testing.assert_close(ghost(x), net(x))


def test_centres_move_and_ghosts_absorb_noise() -> None:
    """Clips of one of two patterns, half of their frames the same noise: the ghost takes the noise."""
    torch.manual_seed(0)
    layer, head = GhostVLAD(8, clusters=2, ghost_clusters=1), torch.nn.Linear(16, 2)
    patterns, noise = torch.eye(8)[:2] * 3, torch.eye(8)[7] * 3
    start = layer.centres.detach().clone()
    optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], 0.02)

    def clips(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(n) % 2
        speech = patterns[labels][:, None].expand(n, 4, 8)
        rest = noise + torch.randn(n, 4, 8)
        return torch.cat([speech + 0.3 * torch.randn(n, 4, 8), rest], 1), labels

    for _ in range(300):
        x, y = clips(32)
        loss = functional.cross_entropy(head(layer(x)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        ghost = layer.assignment(clips(256)[0]).softmax(-1)[..., -1]
    assert (layer.centres - start).norm() > 0.1
    assert ghost[:, 4:].mean() > ghost[:, :4].mean() + 0.2


def test_shapes_and_depth() -> None:
    backbone = SEResNet34()
    convolutions = [m for m in backbone.modules() if isinstance(m, torch.nn.Conv2d)]
    on_the_road = [m for m in convolutions if m.kernel_size in {(7, 7), (3, 3)}]
    assert len(on_the_road) == 33  # and the embedding or class layer: 34
    descriptors, lengths = backbone(torch.randn(2, 161, 257))
    assert descriptors.shape == (2, 11, 128) and lengths.tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="257"):
        backbone(torch.randn(2, 161, 201))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("pooling", [GhostVLAD, MeanPooling])
def test_it_trains_in_other_precisions(dtype: torch.dtype, pooling: type[torch.nn.Module]) -> None:
    torch.manual_seed(0)
    encoder = UtteranceEncoder(SEResNet34((8, 8, 8, 16)), pooling(16), 32).to(dtype)
    embeddings = encoder(torch.randn(4, 60, 257, dtype=dtype), torch.tensor([1.0, 0.7, 0.5, 1.0]))
    classifier, labels = MarginClassifier(32, 3).to(dtype), torch.tensor([0, 1, 2, 1])
    scores = classifier(embeddings, labels)
    assert scores.shape == (4, 1, 3) and torch.equal(scores, classifier(embeddings, labels.unsqueeze(1)))
    scores.sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in encoder.parameters())
