"""Joint descriptors against those of each network alone, and what is refused."""

import pytest
import torch
import torchaudio
from torch.nn.utils.rnn import pad_sequence

from ser_plugins import (
    CAMPPlus,
    JointBackbone,
    KaldiFbank,
    MeanNorm,
    SEResNet34,
    Spectrogram,
    SpectrogramNorm,
    SSLBackbone,
)
from ser_plugins.errors import InputError

STRIDES = {"conv_dim": [8] * 3, "conv_kernel": [10, 9, 9], "conv_stride": [5, 8, 8]}  # 20 ms, as CAM++
SAMPLES = [16000, 9000, 12345]


@pytest.fixture
def parts(write_ssl, tmp_path):
    torch.manual_seed(2)
    source = write_ssl(tmp_path / "source", **STRIDES)
    return [KaldiFbank(), MeanNorm(), CAMPPlus(block=1).eval()], [SSLBackbone(str(source)).eval()]


@pytest.fixture
def clips():
    torch.manual_seed(3)
    return [0.1 * torch.randn(samples) + 1e-3 for samples in SAMPLES]


@torch.no_grad()
def test_each_frame_has_the_descriptors_of_both_networks(parts, clips):
    (features, norm, campplus), (ssl,) = parts
    joint = JointBackbone({"campplus": parts[0], "ssl": parts[1]}).eval()
    descriptors, lengths = joint(pad_sequence(clips, batch_first=True), torch.tensor(SAMPLES) / SAMPLES[0])
    assert joint.output_size == descriptors.shape[2] == 512 + 16
    for clip, found, length in zip(clips, descriptors, lengths, strict=True):
        one, other = campplus(norm(features(clip[None])))[0][0], ssl(clip[None])[0][0]
        frames = min(len(one), len(other))
        assert round(float(length) * len(found)) == frames
        torch.testing.assert_close(found[:frames, :512], one[:frames], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found[:frames, 512:], other[:frames], atol=1e-5, rtol=1e-4)
        assert not found[frames:].any()


@torch.no_grad()
def test_what_lies_beyond_the_length_of_an_utterance_is_not_heard(parts, clips):
    joint = JointBackbone({"campplus": parts[0], "ssl": parts[1]}).eval()
    longer = torch.cat([clips[1], torch.randn(7000)])
    found, lengths = joint(longer[None], torch.tensor([9000 / 16000]))
    expected, _ = joint(clips[1][None])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert lengths.tolist() == [1.0]


@torch.no_grad()
def test_speeds_follow_one_another_in_time(parts, clips):
    branches = {"campplus": parts[0], "ssl": parts[1]}
    joint, plain = JointBackbone(branches, speeds=(100, 90, 110)).eval(), JointBackbone(branches).eval()
    descriptors, lengths = joint(pad_sequence(clips, batch_first=True), torch.tensor(SAMPLES) / SAMPLES[0])
    for clip, found, length in zip(clips, descriptors, lengths, strict=True):
        versions = [clip, *(torchaudio.functional.resample(clip, speed, 100) for speed in (90, 110))]
        assert len(versions[1]) > len(clip) > len(versions[2])
        expected = torch.cat([plain(one[None])[0][0] for one in versions])
        assert round(float(length) * len(found)) == len(expected)
        torch.testing.assert_close(found[: len(expected)], expected, atol=1e-4, rtol=1e-3)
        assert not found[len(expected) :].any()


@pytest.mark.parametrize("speeds", [(), (0,), (100, -90)])
def test_a_speed_is_above_zero(speeds, parts):
    with pytest.raises(InputError, match="speeds must be percentages above 0"):
        JointBackbone({"campplus": parts[0]}, speeds)


@pytest.mark.parametrize("branches", [{}, {"one": []}, {"one": [KaldiFbank(), CAMPPlus(block=1)]}])
def test_a_branch_is_a_network_with_or_without_its_features(branches):
    with pytest.raises(InputError, match=r"of JointBackbone is .*; give one"):
        JointBackbone(branches)


def test_networks_of_different_rates_are_refused(parts, clips):
    slow = [Spectrogram(), SpectrogramNorm(), SEResNet34((4, 8, 8, 8), descriptor_size=6)]
    with pytest.raises(InputError, match="frames; give networks of one rate"):
        JointBackbone({"campplus": parts[0], "slow": slow}).eval()(clips[0][None])
