"""What holds for everything that is registered."""

import re
from pathlib import Path

import onnxruntime
import pytest
import torch

import ser_plugins
from ser_plugins import corpora, registry
from ser_plugins.inference.onnx import convert
from ser_plugins.lengths import relative_lengths
from ser_plugins.models.batchnorm import MaskedBatchNorm

ROOT = Path(__file__).parents[1]
LABELS = ["neutral", "happy", "sad", "angry"]
FRAMES = [64, 40, 17]
# Network, input of an utterance, and size of a descriptor or embedding. An utterance of FeatureCNN is one frame.
# No kernel of 8 over 8 channels in the self-supervised one, as in conftest.py.
SSL = {"model_type": "wavlm", "do_normalize": True, "num_hidden_layers": 2, "num_attention_heads": 2}
SSL |= {"hidden_size": 16, "intermediate_size": 32, "num_conv_pos_embeddings": 6, "num_conv_pos_embedding_groups": 2}
SSL |= {"conv_dim": [8, 8], "conv_kernel": [10, 9], "conv_stride": [5, 8], "num_feat_extract_layers": 2}
JOINT_SSL = SSL | {
    "conv_dim": [8] * 3,
    "conv_kernel": [10, 9, 9],
    "conv_stride": [5, 8, 8],
    "num_feat_extract_layers": 3,
}


def joint_backbone():
    campplus = [ser_plugins.KaldiFbank(), ser_plugins.MeanNorm(), ser_plugins.CAMPPlus(block=1)]
    return ser_plugins.JointBackbone(
        {"campplus": campplus, "ssl": [ser_plugins.SSLBackbone(JOINT_SSL)]}, speeds=(100, 90)
    )


MODELS = {
    "CAMPPlus": (lambda: ser_plugins.CAMPPlus(block=1), (80,), 512),
    "FeatureCNN": (lambda: ser_plugins.FeatureCNN(40, channels=(8, 8, 8), dropout=0.0, embedding_size=12), (40,), 12),
    "JointBackbone": (joint_backbone, (), 528),
    "LSTMBackbone": (lambda: ser_plugins.LSTMBackbone(9, 8, layers=2, with_input=True), (9,), 25),
    "PatchEncoder": (lambda: ser_plugins.PatchEncoder(9, width=4, codes=12, segment=5), (9,), 12),
    "SEResNet34": (lambda: ser_plugins.SEResNet34((8, 8, 16, 16), reduction=1), (257,), 16),
    "SSLBackbone": (lambda: ser_plugins.SSLBackbone(SSL), (), 16),
    "ThinResNet34": (ser_plugins.ThinResNet34, (257,), 3584),
    "UtteranceEncoder": (
        lambda: ser_plugins.UtteranceEncoder(
            ser_plugins.SEResNet34((8, 8, 16, 16), (1, 1, 1, 1), reduction=1), ser_plugins.GhostVLAD(16), 12
        ),
        (257,),
        12,
    ),
}
POOLINGS = {
    "AttentivePooling": (lambda: ser_plugins.AttentivePooling(6), (6,), 6),
    "GhostVLAD": (lambda: ser_plugins.GhostVLAD(6, clusters=4), (6,), 24),
    "MeanPooling": (lambda: ser_plugins.MeanPooling(6), (6,), 6),
    "StatisticsPooling": (lambda: ser_plugins.StatisticsPooling(6), (6,), 12),
    "ProjectedGhostVLAD": (lambda: ser_plugins.ProjectedGhostVLAD(6, projected_size=5, clusters=4), (6,), 20),
}
LOSSES = {
    "ContrastiveLoss": ser_plugins.ContrastiveLoss,
    "EmotionConstrainedTripletLoss": lambda: ser_plugins.EmotionConstrainedTripletLoss(LABELS, alpha=0.5, beta=0.5),
    "GradedTripletLoss": lambda: ser_plugins.GradedTripletLoss(LABELS, margin=1.0),
    "SmoothedCrossEntropy": lambda: ser_plugins.SmoothedCrossEntropy([1, 2, 3, 4]),
    "TripletLoss": lambda: ser_plugins.TripletLoss(margin=0.5),
}
SAMPLES_PER_FRAME = 100
WAVEFORMS = ("JointBackbone", "SSLBackbone")  # their utterances of each length are computed apart
# Their second result are lengths.
BACKBONES = ("CAMPPlus", "LSTMBackbone", "PatchEncoder", "SEResNet34", "ThinResNet34")


def make(name, seed=0):
    """A module of any weights and statistics."""
    torch.manual_seed(seed)
    module = {**MODELS, **POOLINGS}[name][0]()
    for part in module.modules():
        if isinstance(part, MaskedBatchNorm):
            torch.nn.init.normal_(part.running_mean, std=0.1)
            torch.nn.init.uniform_(part.running_var, 0.5, 1.5)
        if isinstance(part, ser_plugins.AttentivePooling):
            torch.nn.init.normal_(part.attention)
    return module.eval()


def batch(name):
    """A padded batch, and its utterances alone."""
    size = {**MODELS, **POOLINGS}[name][1]
    factor = SAMPLES_PER_FRAME if name in WAVEFORMS else 1
    frames = [1] * len(FRAMES) if name == "FeatureCNN" else [factor * count for count in FRAMES]
    torch.manual_seed(1)
    alone = [torch.randn(count, *size) for count in frames]
    lengths = relative_lengths(torch.tensor(frames), max(frames))
    return torch.nn.utils.rnn.pad_sequence(alone, batch_first=True), lengths, alone


def rows(result):
    """Output of each utterance without its padding: descriptors [T'', D], an embedding [1, E] or a vector [P]."""
    if isinstance(result, torch.Tensor):
        return list(result)
    descriptors, lengths = result
    counts = (lengths.double() * descriptors.shape[1]).round().long().tolist()
    assert max(counts) == descriptors.shape[1]
    assert not any(one[count:].any() for one, count in zip(descriptors, counts, strict=True))
    return [one[:count] for one, count in zip(descriptors, counts, strict=True)]


def flat(result):
    return torch.cat([row.flatten() for row in rows(result)])


everything = pytest.mark.parametrize("name", [*MODELS, *POOLINGS])
each_loss = pytest.mark.parametrize("name", list(LOSSES))


def test_all_that_is_registered_is_tested():
    kinds = (registry.MODELS, registry.POOLINGS, registry.LOSSES)
    assert [set(MODELS), set(POOLINGS), set(LOSSES)] == [set(kind) for kind in kinds]
    for name in (*MODELS, *POOLINGS, *LOSSES):
        known = {**registry.MODELS, **registry.POOLINGS, **registry.LOSSES}
        assert known[name] is getattr(ser_plugins, name) and issubclass(known[name], torch.nn.Module)


def test_all_that_is_public_is_registered():
    public = {name for name in ser_plugins.__all__ if isinstance(getattr(ser_plugins, name), type)}
    others = {name for name in public if name.endswith(("Classifier", "Features", "Normalizer"))}
    audio = {"KaldiFbank", "MeanNorm", "MelSpectrogram", "Spectrogram", "SpectrogramNorm"}
    distortions = {"Babble", "RandomEqualizer", "RandomLevel"}
    assert public - others - audio - distortions == {
        *MODELS,
        *POOLINGS,
        *LOSSES,
    }


def test_a_corpus_is_what_a_recipe_names():
    yaml = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "hparams" / "corpora").iterdir())
    readers = set(corpora.__all__) - {"Corpus"}
    assert set(re.findall(r"!new:ser_plugins\.corpora\.(\w+)", yaml)) == readers
    assert all(callable(getattr(corpora, name).read) for name in readers)


@everything
@torch.no_grad()
def test_shapes(name):
    x, lengths, alone = batch(name)
    result = make(name)(x, lengths)
    size = {**MODELS, **POOLINGS}[name][2]
    if isinstance(result, tuple):
        assert result[0].shape[0::2] == (len(alone), size) and result[1].shape == (len(alone),)
    else:
        assert result.shape == ((len(alone), size) if name in POOLINGS else (len(alone), 1, size))


@everything
@torch.no_grad()
def test_an_utterance_gives_alone_what_it_gives_in_a_batch(name):
    module, (x, lengths, alone) = make(name), batch(name)
    for together, one in zip(rows(module(x, lengths)), alone, strict=True):
        torch.testing.assert_close(together, rows(module(one[None]))[0], atol=1e-5, rtol=1e-4)


@everything
@torch.no_grad()
def test_lengths_that_pad_nothing_may_be_left_out(name):
    module, (x, _, _) = make(name), batch(name)
    x = x[:1].repeat_interleave(2, dim=0)
    torch.testing.assert_close(flat(module(x, torch.ones(2))), flat(module(x)), atol=1e-6, rtol=1e-5)


@everything
def test_gradients_reach_every_weight(name):
    module, (x, lengths, _) = make(name).train(), batch(name)
    result = flat(module(x.requires_grad_(), lengths))
    (result * torch.randn_like(result)).sum().backward()
    assert x.grad.any()
    for weight, parameter in module.named_parameters():
        assert not parameter.requires_grad or (parameter.grad.isfinite().all() and parameter.grad.any()), weight


@everything
@torch.no_grad()
def test_precisions_agree(name):
    module, (x, lengths, _) = make(name), batch(name)
    expected = flat(module(x, lengths))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = flat(module(x, lengths))
    assert torch.cosine_similarity(cast.float(), expected, dim=0) > 0.98
    exact = flat(module.double()(x.double(), lengths))
    assert exact.dtype == torch.float64
    torch.testing.assert_close(exact.float(), expected, atol=1e-4, rtol=1e-3)


@everything
@torch.no_grad()
def test_the_state_dict_is_all_that_was_learned(name):
    module, other, (x, lengths, _) = make(name), make(name, seed=2), batch(name)
    other.load_state_dict(module.state_dict(), strict=True)
    assert torch.equal(flat(other(x, lengths)), flat(module(x, lengths)))


# An exported graph cannot compute utterances of each length apart.
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in (*MODELS, *POOLINGS) if name not in WAVEFORMS])
@torch.no_grad()
def test_onnx_gives_the_same(name):
    module, (x, lengths, alone) = make(name), batch(name)
    axes = ("batch",) if name == "FeatureCNN" else ("batch", "frames")
    graph = convert(
        module, (x, lengths), {"x": axes, "lengths": ("batch",)}, ["y", "y_lengths"][: 1 + (name in BACKBONES)]
    )
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for given in ((x, lengths), (alone[1][None], torch.ones(1)), (x.flip(0), lengths.flip(0))):
        found = [
            torch.from_numpy(one) for one in session.run(None, {"x": given[0].numpy(), "lengths": given[1].numpy()})
        ]
        if name in BACKBONES:
            counts = (found[1].double() * found[0].shape[1]).round().long().tolist()  # padded descriptors may be more
            found = [one[:count] for one, count in zip(found[0], counts, strict=True)]
        for own, other in zip(found, rows(module(*given)) if name in BACKBONES else [module(*given)], strict=True):
            torch.testing.assert_close(own, other, atol=1e-4, rtol=1e-4)


@each_loss
def test_a_loss_is_a_scalar_that_reaches_what_it_is_given(name):
    torch.manual_seed(0)
    loss, labels = LOSSES[name](), torch.arange(16) % 4
    given = torch.randn(16, 4, dtype=torch.float64).log_softmax(-1).requires_grad_()
    exact = loss(given, labels)
    exact.backward()
    assert exact.shape == () and exact.dtype == torch.float64 and given.grad.abs().sum(0).all()
    order = torch.randperm(16)
    torch.testing.assert_close(loss(given[order], labels[order]), exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = loss(given.detach().float(), labels)
    assert cast.dtype == torch.float32
    torch.testing.assert_close(cast, exact.float(), atol=1e-5, rtol=1e-4)
