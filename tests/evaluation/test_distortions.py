"""Distortions against plain computations, on tones, noise and speech of the built-in corpus."""

import io

import av
import numpy as np
import pytest

from ser_plugins.corpora.synthetic import speak
from ser_plugins.evaluation import distortions as d

RATE = 16000


def draws(seed=0):
    return np.random.default_rng(seed)


def tone(hertz, seconds=1.0, rate=RATE):
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def power(samples):
    return float(np.mean(np.asarray(samples, np.float64) ** 2))


def band_power(samples, low, high):
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    hertz = np.fft.rfftfreq(len(samples), 1 / RATE)
    return spectrum[(hertz >= low) & (hertz < high)].sum()


@pytest.fixture(scope="module")
def crowd():
    return [np.asarray(speak(0, speaker, "happy", 1), np.float32) for speaker in range(1, 5)]


@pytest.mark.parametrize("ratio", [20, 10, 0])
def test_noise_has_the_ratio(crowd, ratio):
    clean = crowd[0]
    for noisy in (d.white_noise(clean, RATE, draws(), ratio), d.babble(clean, RATE, draws(), ratio, crowd[1:])):
        noise = noisy.astype(float) - clean
        assert 10 * np.log10(power(clean) / power(noise)) == pytest.approx(ratio, abs=0.01)


def test_white_noise_is_flat_and_babble_is_of_the_crowd():
    noise = d.white_noise(tone(440), RATE, draws(), 0) - tone(440)
    halves = [band_power(noise, low, low + 4000) for low in (0, 4000)]
    assert halves[0] == pytest.approx(halves[1], rel=0.1)
    crowd = [tone(hertz) for hertz in (300, 700, 1500)]
    spectrum = np.abs(np.fft.rfft(d.babble(tone(5000), RATE, draws(), 0, crowd) - tone(5000)))
    assert sorted(np.argsort(spectrum)[-3:]) == [300, 700, 1500]  # a bin a hertz
    assert spectrum[[300, 700, 1500]].std() < 0.01 * spectrum.max()  # all as loud


def test_a_telephone_passes_its_band_alone():
    noise = draws(1).normal(0, 0.1, 10 * RATE).astype(np.float32)
    heard = d.telephone(noise, RATE, draws())
    assert len(heard) == len(noise)
    inside, below, above = ((500, 3000), (0, 150), (4200, 8000))
    assert band_power(heard, *inside) / band_power(noise, *inside) == pytest.approx(1, abs=0.05)
    for band in (below, above):
        assert band_power(heard, *band) < 1e-2 * band_power(noise, *band)


def test_mu_law_has_the_levels_of_g711():
    ramp = np.linspace(-1, 1, 40000, dtype=np.float32)
    found = np.unique(d.coded(ramp, 8000, draws(), "pcm_mulaw", "wav"))
    codes = np.arange(128)
    # Of each code, exponent and mantissa: ((mantissa · 2 + 33) · 2^exponent − 33), in units of 1 / 8192.
    expected = ((2 * (codes & 15) + 33) * 2.0 ** (codes >> 4) - 33) / 8192
    np.testing.assert_allclose(found, np.unique([*-expected, *expected]), atol=1e-6)


@pytest.mark.parametrize(("settings", "kbits", "codec"), [(d.OPUS, 12, "opus"), (d.MP3, 32, "mp3float")])
def test_codecs_keep_the_speech_and_its_place_at_their_bit_rate(crowd, settings, kbits, codec):
    clean = np.tile(crowd[0], 4)
    content = d.encode(clean, RATE, **settings)
    with av.open(io.BytesIO(content)) as file:
        assert file.streams.audio[0].codec_context.name == codec
    assert len(content) * 8 / (len(clean) / RATE) / 1000 == pytest.approx(kbits, rel=0.25)
    heard = d.decode(content, RATE)
    size = min(len(clean), len(heard))
    assert abs(len(heard) - len(clean)) < 0.1 * RATE
    low = [np.fft.irfft(np.fft.rfft(x[:size])[: size // 16], size) for x in (clean, heard)]  # below 1 kHz
    assert np.corrcoef(*low)[0, 1] > 0.9 and not np.allclose(heard[:size], clean[:size], atol=1e-4)


def test_reverberation_decays_by_60_db_in_its_time():
    click = np.zeros(RATE, np.float32)
    click[0] = 1
    heard = d.reverberation(click, RATE, draws(), seconds=0.5).astype(float)
    assert power(heard) == pytest.approx(power(click), rel=1e-3)
    echo = heard[1:8000]
    assert np.sum(echo**2) == pytest.approx(heard[0] ** 2, rel=1e-3)
    # Schroeder's backward integral falls by 60 dB in 0.5 s.
    left = 10 * np.log10(np.cumsum(echo[::-1] ** 2)[::-1])
    slope = np.polyfit(np.arange(4000) / RATE, left[:4000], 1)[0]
    assert slope == pytest.approx(-60 / 0.5, rel=0.05)


def test_clipping_level_and_speed():
    clean = tone(1000)
    clipped = d.clipping(clean, RATE, draws())
    assert np.abs(clipped).max() == pytest.approx(np.abs(clean).max() / 3.981, rel=1e-3)
    quiet = np.abs(clean) < 0.05
    assert (clipped[quiet] == clean[quiet]).all() and quiet.any()
    assert power(d.level(clean, RATE, draws(), 20)) == pytest.approx(100 * power(clean), rel=1e-4)
    for percent in (90, 110):
        heard = d.speed(clean, RATE, draws(), percent)
        assert len(heard) == pytest.approx(len(clean) * 100 / percent, abs=1)
        peak = np.abs(np.fft.rfft(heard)).argmax() * RATE / len(heard)
        assert peak == pytest.approx(10 * percent, abs=2)


def test_a_late_start_counts_from_the_first_sound():
    silence = draws().normal(0, 1e-4, RATE).astype(np.float32)
    heard = d.late_start(np.concatenate([silence, tone(200, 2.0)]), RATE, draws())
    assert abs(len(heard) - RATE) < 100
    assert len(d.late_start(tone(200, 1.2), RATE, draws())) == RATE // 2
    assert len(d.late_start(tone(200, 0.3), RATE, draws())) == 0.3 * RATE


def test_all_are_repeatable_and_leave_their_input(crowd):
    clean = crowd[0]
    before = clean.copy()
    for name, distort in d.distortions(crowd[1:]).items():
        first, again = (distort(clean, RATE, draws(7)) for _ in range(2))
        assert first.dtype == np.float32 and first.ndim == 1 and np.isfinite(first).all(), name
        assert (first == again).all() and not np.array_equal(first, clean), name
    assert (clean == before).all()


def test_silence_stays_finite(crowd):
    silence = np.zeros(RATE, np.float32)
    for name, distort in d.distortions(crowd).items():
        heard = distort(silence, RATE, draws())
        assert len(heard) and np.abs(heard).max() < 1e-3, name
