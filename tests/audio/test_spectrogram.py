"""The spectrogram and its normalisation against loops of numpy, Mel filters against librosa's."""

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import get_window

from ser_plugins.audio.speaker import SpeakerStatistics
from ser_plugins.audio.spectrogram import MelSpectrogram, Spectrogram, SpectrogramNorm

WINDOW, HOP = 512, 160  # 32 ms and 10 ms at 16 kHz


def noise(samples, seed=0):
    return np.random.default_rng(seed).uniform(0.01, 1, samples).astype(np.float32)


def magnitudes_by_loop(signal):
    window, padded = get_window("hamming", WINDOW), np.pad(signal.astype(np.float64), WINDOW // 2)
    starts = range(0, len(signal) + 1, HOP)
    return np.stack([np.abs(np.fft.rfft(padded[start : start + WINDOW] * window)) for start in starts])


@pytest.mark.parametrize("samples", [1, 159, 160, 511, 5000])
def test_magnitudes_are_those_of_a_loop(samples):
    signals = np.stack([noise(samples, seed) for seed in (1, 2)])
    expected = [magnitudes_by_loop(signal) for signal in signals]
    np.testing.assert_allclose(Spectrogram(log=False)(torch.from_numpy(signals)), expected, atol=1e-4, rtol=1e-5)


def test_a_short_hann_window_stands_in_the_middle_of_the_fft():
    """As librosa.stft(n_fft=512, win_length=400, hop_length=160) has it, but for the border."""
    signal = noise(5000) - 0.5
    window, padded = np.pad(get_window("hann", 400), 56), np.pad(signal.astype(np.float64), 256)
    expected = [np.abs(np.fft.rfft(padded[start : start + 512] * window)) for start in range(0, 5001, 160)]
    feats = Spectrogram(win_length=25.0, window="hann", log=False)(torch.from_numpy(signal)[None])[0]
    np.testing.assert_allclose(feats, expected, atol=1e-4, rtol=1e-5)
    with pytest.raises(ValueError, match="hamming, hann"):
        Spectrogram(window="blackman")


@pytest.mark.parametrize("floor", [1e-3, 0.5])
def test_logarithm_is_that_of_a_loop(floor):
    signal = noise(2000) - 0.5
    expected = np.log(1 + magnitudes_by_loop(signal) / floor)
    feats = Spectrogram(floor=floor)(torch.from_numpy(signal)[None])
    np.testing.assert_allclose(feats[0], expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("kind", [Spectrogram, MelSpectrogram])
def test_they_are_logarithmic_unless_told_otherwise(kind):
    wavs = torch.from_numpy(noise(2000))[None]
    assert torch.equal(kind()(wavs), kind(log=True)(wavs)) and not torch.equal(kind()(wavs), kind(log=False)(wavs))


@pytest.mark.parametrize("seconds", [1, 2, 7])
def test_a_second_has_a_hundred_frames_of_257_bins(seconds):
    assert Spectrogram()(torch.ones(1, 16000 * seconds)).shape == (1, 100 * seconds + 1, 257)


def test_other_sample_rates_keep_the_milliseconds():
    feats = Spectrogram(sample_rate=8000, n_fft=256)(torch.from_numpy(noise(8000))[None])
    assert feats.shape == (1, 101, 129)


def test_a_tone_lies_in_its_bin():
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(16000) / 16000)
    assert Spectrogram()(tone[None])[0, 10:-10].argmax(-1).unique().tolist() == [32]  # 1000 Hz / 31.25 Hz


@pytest.mark.parametrize(("sample_rate", "n_mels"), [(16000, 80), (8000, 40)])
def test_mel_filters_are_those_of_librosa(sample_rate, n_mels):
    signal = noise(4000) - 0.5
    filters = librosa.filters.mel(sr=sample_rate, n_fft=512, n_mels=n_mels, norm=None)
    options = {"sample_rate": sample_rate, "hop_length": 1000 * HOP / sample_rate}
    options["win_length"] = 1000 * WINDOW / sample_rate
    for log in (False, True):
        feats = MelSpectrogram(n_mels, log=log, **options)(torch.from_numpy(signal)[None])
        expected = magnitudes_by_loop(signal) @ filters.T
        np.testing.assert_allclose(feats[0], np.log(1 + expected / 1e-3) if log else expected, atol=1e-3, rtol=1e-4)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 4000), min_size=1, max_size=4),
    st.integers(0, 2000),
    st.sampled_from([Spectrogram, MelSpectrogram]),
    st.booleans(),
)
def test_padded_clips_have_the_frames_they_have_alone(lengths, beyond, kind, log):
    spectrogram = kind(log=log)
    clips = [torch.from_numpy(noise(n, seed)) for seed, n in enumerate(lengths)]
    batch = torch.zeros(len(clips), max(lengths) + beyond)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip
    for feats, clip in zip(spectrogram(batch), clips, strict=True):
        alone = spectrogram(clip[None])[0]
        torch.testing.assert_close(feats[: len(alone)], alone, atol=1e-4, rtol=1e-5)
        assert not feats[len(alone) :].any()


def test_frames_after_the_last_sound_are_blank():
    signal = np.concatenate([noise(1000), np.zeros(4000, np.float32)])
    feats = Spectrogram(log=False)(torch.from_numpy(signal)[None])[0]
    np.testing.assert_allclose(feats[:7], magnitudes_by_loop(signal)[:7], atol=1e-4)
    assert not feats[7:].any() and not Spectrogram()(torch.zeros(1, 500)).any()


@pytest.mark.parametrize("axis", ["utterance", "bin", "frame", "speaker"])
@pytest.mark.parametrize("relative", [True, False], ids=["lengths", "blank"])
def test_norm_is_that_of_the_frames_that_are_not_padded(axis, relative):
    frames = [9, 4, 1]
    feats = torch.from_numpy(np.random.default_rng(0).normal(3, 2, (3, 9, 257)))
    lengths = torch.tensor(frames) / 9
    for row, n in zip(feats, frames, strict=True):
        row[n:] = 77 if relative else 0
    out = SpectrogramNorm(axis)(feats, lengths if relative else None).numpy()
    over = {"utterance": (0, 1), "bin": 0, "frame": 1, "speaker": 0}[axis]
    for found, given_, n in zip(out, feats.numpy(), frames, strict=True):
        valid = given_[:n]
        centred = valid - valid.mean(over, keepdims=True)
        deviation = np.sqrt(np.square(centred).mean(None if axis == "speaker" else over, keepdims=True))
        expected = centred / (deviation + 1e-5)
        np.testing.assert_allclose(found[:n], expected, atol=1e-9)
        assert not found[n:].any()


def test_all_that_a_speaker_says_is_normalised_together():
    features, norm = MelSpectrogram(log=True), SpectrogramNorm(speaker_normalization="features")
    clips = [[noise(n, n) * level for n in (3000, 4500, 800)] for level in (0.1, 2.0)]
    feats = [[features(torch.from_numpy(clip)[None]) for clip in speaker] for speaker in clips]
    voices = torch.stack([SpeakerStatistics.measure_features(speaker) for speaker in feats])
    spoken = zip(feats, voices, strict=True)
    found = [[norm(one, None, voice[None])[0].numpy() for one in speaker] for speaker, voice in spoken]
    for speaker in found:
        frames = np.concatenate(speaker)
        np.testing.assert_allclose(frames.mean(0), 0, atol=1e-4)
        assert abs(frames.std() - 1) < 1e-3 and not np.allclose(speaker[0].std(), 1, atol=1e-3)
    # a padded batch of both, and one speaker for all
    batch = torch.zeros(2, feats[0][1].shape[1], 80)
    batch[0], batch[1, : feats[1][2].shape[1]] = feats[0][1], feats[1][2]
    together = norm(batch, None, voices).numpy()
    np.testing.assert_allclose(together[0], found[0][1], atol=1e-5)
    np.testing.assert_allclose(together[1, : len(found[1][2])], found[1][2], atol=1e-5)
    assert not together[1, len(found[1][2]) :].any()
    np.testing.assert_allclose(norm(feats[0][1], speaker=voices[0])[0], found[0][1], atol=1e-5)


def test_statistics_of_a_speaker_do_not_stay():
    norm, feats = SpectrogramNorm(speaker_normalization="features"), torch.randn(1, 9, 5)
    before = norm(feats)
    norm(feats, speaker=torch.ones(6))
    assert torch.equal(norm(feats), before)


def test_statistics_of_a_speaker_are_refused_where_they_make_no_sense():
    with pytest.raises(ValueError, match="speaker_normalization='features'"):
        SpectrogramNorm()(torch.randn(1, 9, 5), speaker=torch.ones(6))
    with pytest.raises(ValueError, match="no frame"):
        SpeakerStatistics.measure_features([torch.zeros(1, 4, 5)])
    with pytest.raises(ValueError, match=r"none, features, embeddings, features\+embeddings, not 'voice'"):
        SpectrogramNorm(speaker_normalization="voice")


def test_axis_speaker_is_the_old_spelling():
    feats = torch.randn(2, 9, 5)
    new = SpectrogramNorm(speaker_normalization="features")(feats)
    assert torch.equal(SpectrogramNorm("speaker")(feats), new)
    assert not torch.equal(SpectrogramNorm("bin")(feats), new)


@pytest.mark.parametrize("axis", ["utterance", "bin", "frame", "speaker"])
def test_silence_stays_finite(axis):
    assert not SpectrogramNorm(axis)(Spectrogram(log=True)(torch.zeros(2, 3200))).any()


@pytest.mark.parametrize("axis", ["utterance", "bin", "frame", "speaker"])
def test_slopes_are_finite_where_nothing_varies(axis):
    feats = torch.stack([torch.zeros(5, 8), torch.randn(5, 8)]).requires_grad_()
    SpectrogramNorm(axis)(feats, torch.tensor([1.0, 0.2])).square().sum().backward()
    assert torch.isfinite(feats.grad).all()


@pytest.mark.parametrize("log", [False, True])
def test_autocast_changes_nothing(log):
    wavs, spectrogram, norm = torch.from_numpy(noise(4000))[None], Spectrogram(log=log), SpectrogramNorm()
    plain = norm(spectrogram(wavs))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = norm(spectrogram(wavs))
    assert cast.dtype == torch.float32 and torch.equal(cast, plain)


def test_the_window_follows_the_module_and_is_not_saved():
    assert not Spectrogram().state_dict() and not MelSpectrogram().state_dict()
    wavs = torch.from_numpy(noise(1000))[None]
    for spectrogram in (Spectrogram(), MelSpectrogram()):
        assert spectrogram.half()(wavs).dtype == torch.float32


def test_other_shapes_and_axes_are_refused():
    with pytest.raises(ValueError, match=r"\[batch, samples\]"):
        Spectrogram()(torch.zeros(100))
    with pytest.raises(ValueError, match="utterance, bin, frame, not"):
        SpectrogramNorm("time")
