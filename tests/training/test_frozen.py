"""Descriptors of a frozen backbone against the network itself."""

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from ser_plugins import (
    CAMPPlus,
    GhostVLAD,
    KaldiFbank,
    MeanNorm,
    SEResNet34,
    Spectrogram,
    SpectrogramNorm,
    UtteranceEncoder,
    configuration,
)
from ser_plugins.errors import InputError
from ser_plugins.training.frozen import StoredDescriptors, freeze, thaw

NETWORKS = {
    "se_resnet": lambda: (Spectrogram(), SpectrogramNorm(), SEResNet34((4, 8, 8, 8), descriptor_size=6)),
    "campplus": lambda: (KaldiFbank(), MeanNorm(), CAMPPlus(block=1)),
}


@pytest.fixture
def clips():
    torch.manual_seed(3)
    return [0.1 * torch.randn(samples) + 1e-3 for samples in (16000, 9000, 12345)]


def network(kind):
    torch.manual_seed(5)
    parts = NETWORKS[kind]()
    return [part.eval() for part in parts]


@pytest.mark.parametrize("kind", NETWORKS)
def test_stored_descriptors_are_those_of_each_utterance_alone(kind, clips, tmp_path):
    features, norm, backbone = network(kind)
    together = pad_sequence(clips, batch_first=True)
    stored = StoredDescriptors(features, norm, backbone, tmp_path)
    for found in (stored(together), stored(together)):  # computed, then read
        for clip, one in zip(clips, found, strict=True):
            with torch.no_grad():
                expected = backbone(norm(features(clip[None])))[0][0]
            torch.testing.assert_close(one[: len(expected)], expected, rtol=1e-3, atol=1e-3)
            assert not one[len(expected) :].any()
    assert len(list(tmp_path.rglob("*.npy"))) == 3


def test_descriptors_are_computed_once_for_each_network(clips, tmp_path, monkeypatch):
    parts = network("se_resnet")
    first = StoredDescriptors(*parts, tmp_path)(clips[0][None])
    again = StoredDescriptors(*network("se_resnet"), tmp_path)
    monkeypatch.setattr(again.backbone, "forward", lambda *_: pytest.fail("computed again"))
    assert torch.equal(again(clips[0][None]), first)
    torch.nn.init.normal_(parts[2].stem.weight)
    other = StoredDescriptors(*parts, tmp_path)(clips[0][None])
    assert not torch.equal(other, first)


def tree(tmp_path, **changes):
    none = dict.fromkeys(("crop_seconds", "wav_augment", "feat_augment", "mixup"))
    settings = {"freeze_backbone": True, "cache_folder": str(tmp_path), **none, **changes}
    return configuration.compose("s3", "synthetic", settings)


def objects(encoder):
    none = dict.fromkeys(("crop_seconds", "wav_augment", "feat_augment", "mixup"))
    return {
        "compute_features": Spectrogram(),
        "mean_var_norm": SpectrogramNorm(),
        "embedding_model": encoder,
        "speaker_normalization": "none",
        **none,
    }


def test_a_frozen_run_embeds_as_the_whole_network_does(clips, tmp_path):
    features, norm, backbone = network("se_resnet")
    encoder = UtteranceEncoder(backbone, GhostVLAD(6, clusters=2), 8).eval()
    together, lengths = pad_sequence(clips, batch_first=True), torch.tensor([1.0, 9000 / 16000, 12345 / 16000])
    with torch.no_grad():
        expected = encoder(norm(features(together), lengths), lengths)
    hparams = objects(encoder)
    replaced = freeze(hparams, tree(tmp_path))
    modules = torch.nn.ModuleDict(
        {name: hparams[name] for name in ("compute_features", "mean_var_norm", "embedding_model")}
    )
    modules.train()
    encoder.eval()
    stored = modules.mean_var_norm(modules.compute_features(together), lengths)
    found = modules.embedding_model(stored, lengths)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)
    found.sum().backward()
    assert all(weight.grad is None for weight in backbone.parameters())
    assert encoder.embedding.weight.grad is not None
    assert not backbone.training
    thaw(modules, replaced)
    assert modules.embedding_model.backbone is backbone and isinstance(modules.compute_features, Spectrogram)
    with torch.no_grad():
        assert torch.equal(encoder(norm(features(together), lengths), lengths), expected)


def test_without_the_key_nothing_changes(tmp_path):
    hparams = objects(UtteranceEncoder(SEResNet34((4, 8, 8, 8)), GhostVLAD()))
    before = dict(hparams)
    assert freeze(hparams, tree(tmp_path, freeze_backbone=False)) == {}
    assert hparams == before


@pytest.mark.parametrize("name", ["crop_seconds", "mixup"])
def test_settings_that_change_an_utterance_are_refused(name, tmp_path):
    hparams = objects(UtteranceEncoder(SEResNet34((4, 8, 8, 8)), GhostVLAD())) | {name: 0.5}
    with pytest.raises(InputError, match=f"--{name} null"):
        freeze(hparams, tree(tmp_path))


def test_speaker_normalised_features_are_refused(tmp_path):
    hparams = objects(UtteranceEncoder(SEResNet34((4, 8, 8, 8)), GhostVLAD())) | {"speaker_normalization": "features"}
    with pytest.raises(InputError, match="--speaker_normalization embeddings"):
        freeze(hparams, tree(tmp_path))
