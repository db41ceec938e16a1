"""From samples of any kind to mono 16 kHz speech, held against NumPy, SpeechBrain and the signals' construction."""

import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
import soundfile as sf
import torch
from speechbrain.dataio.preprocess import AudioNormalizer
from speechbrain.inference.interfaces import Pretrained

from ser_plugins.audio import silero, speech
from ser_plugins.audio.speech import SpeechNormalizer, load_audio, normalize_file
from ser_plugins.corpora.synthetic import speak
from ser_plugins.errors import InputError

PLAIN = SpeechNormalizer(vad="none")


def sine(hertz, rate, seconds=1.0, amplitude=0.5):
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def spectrum(signal, rate=16000):
    """Amplitudes by frequency in Hz, of the second that the signal lasts."""
    signal = np.asarray(signal)
    return dict(zip(np.fft.rfftfreq(len(signal), 1 / rate), abs(np.fft.rfft(signal)) * 2 / len(signal), strict=True))


def pause(seconds):
    """The noise of a quiet room."""
    return 1e-3 * np.random.default_rng(0).normal(size=round(16000 * seconds))


@pytest.fixture(scope="module")
def spoken():
    """Two utterances between long pauses."""
    first, second = speak(0, 1, "angry", 1), speak(0, 2, "sad", 2)
    parts = [pause(1), first, pause(2), second, pause(1)]
    return torch.tensor(np.concatenate(parts), dtype=torch.float32), len(first) + len(second)


def pieces(result, signal, least=64):
    """Cut ``result`` into the longest pieces of ``signal`` in their order: pairs of start and end."""
    result, signal = np.asarray(result), np.asarray(signal)
    windows = np.lib.stride_tricks.sliding_window_view(signal, least)
    found, done, position = [], 0, 0
    while done < len(result):
        width = min(least, len(result) - done)
        (matches,) = np.nonzero((windows[position:, :width] == result[done : done + width]).all(1))
        assert len(matches), f"sample {done} of the result is not from the rest of the signal"
        start = position + matches[0]
        longest = min(len(result) - done, len(signal) - start)
        differ = result[done : done + longest] != signal[start : start + longest]
        length = int(differ.argmax()) if differ.any() else longest
        found.append((start, start + length))
        done, position = done + length, start + length
    return found


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_downmix_is_the_mean_of_the_channels(channels):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (4000, channels)).astype(np.float32)
    result = PLAIN(torch.from_numpy(samples), 16000)
    assert result.shape == (4000,) and result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), samples.mean(1), atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000, 96000])
def test_resampling_keeps_pitch_level_and_duration(rate):
    result = PLAIN(torch.from_numpy(sine(1000, rate)), rate).numpy()
    assert len(result) == 16000
    amplitudes = spectrum(result)
    assert max(amplitudes, key=amplitudes.get) == 1000
    assert amplitudes[1000] == pytest.approx(0.5, rel=0.02)
    apart = [value for hertz, value in amplitudes.items() if abs(hertz - 1000) > 50]
    assert max(apart) < 0.005
    # Nothing is moved in time, either.
    np.testing.assert_allclose(result[1000:-1000], sine(1000, 16000)[1000:-1000], atol=0.02)


def test_frequencies_beyond_the_new_band_are_not_folded_into_it():
    result = PLAIN(torch.from_numpy(sine(11000, 48000)), 48000).numpy()
    assert np.sqrt(np.mean(result[500:-500] ** 2)) < 0.005


@pytest.mark.parametrize("frames", [44100, 44101, 50001, 12345])
def test_odd_lengths_are_rounded_up(frames):
    assert len(PLAIN(torch.ones(frames), 44100)) == int(np.ceil(frames * 16000 / 44100))


@pytest.mark.parametrize(
    "suffix, subtype, error",
    [
        ("wav", "PCM_16", 2**-15),
        ("wav", "PCM_24", 2**-23),
        ("wav", "PCM_32", 1e-7),
        ("wav", "PCM_U8", 2**-7),
        ("wav", "FLOAT", 1e-7),
        ("wav", "DOUBLE", 1e-7),
        ("flac", "PCM_16", 2**-15),
        ("flac", "PCM_24", 2**-23),
    ],
)
@pytest.mark.parametrize("channels", [1, 6])
def test_files_of_any_kind_are_read(tmp_path, suffix, subtype, error, channels):
    samples = np.stack([sine(200 * (channel + 1), 16000) for channel in range(channels)], axis=1)
    path = tmp_path / f"clip.{suffix}"
    sf.write(path, samples, 16000, subtype=subtype)
    loaded, rate = load_audio(path)
    assert rate == 16000 and loaded.shape == samples.shape and loaded.dtype == np.float32
    np.testing.assert_allclose(normalize_file(str(path), PLAIN).numpy(), samples.mean(1), atol=error)


@pytest.mark.parametrize(
    "samples, said",
    [
        (np.array([0.1] * 4000 + [np.nan] + [0.1] * 4000), "NaN"),
        (np.array([0.1] * 4000 + [np.inf] + [0.1] * 4000), "infinity"),
        (np.full(4000, 1e39), "infinity"),  # beyond single precision
        (np.array([0.1] * 4000 + [1e38] + [0.1] * 4000), r"a sample of 1e\+38"),
        (np.array([0.1] * 4000 + [-1e10] + [0.1] * 4000), r"a sample of 1e\+10"),
        (np.zeros(4000), "it is silent"),
        (np.array([[0.1, -0.1]] * 4000), "it is silent"),
        (np.full(1599, 0.1), "too short"),
        (np.zeros(0), "no samples"),
    ],
)
@pytest.mark.parametrize("vad", ["silero", "webrtc", "none"])
def test_unusable_sound_is_refused_and_named(tmp_path, samples, said, vad):
    path = tmp_path / "clip.wav"
    sf.write(path, samples, 16000, subtype="DOUBLE")
    with pytest.raises(InputError, match=said) as error:
        normalize_file(path, SpeechNormalizer(vad=vad))
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("vad", ["silero", "webrtc", "none"])
def test_a_tenth_of_a_second_is_enough(vad):
    assert len(SpeechNormalizer(vad=vad)(torch.from_numpy(sine(200, 48000, 0.1)), 48000)) > 0


@pytest.mark.parametrize("peak", [32767.0, 2.0**31])
def test_floats_on_the_scale_of_integers_are_taken(peak):
    result = PLAIN(torch.from_numpy(sine(440, 48000)) * 2 * peak, 48000)
    assert result.isfinite().all() and result.abs().max() == pytest.approx(peak, rel=0.01)


@pytest.mark.parametrize(
    "content, said",
    [
        (None, "is missing"),
        (b"", "not readable as audio"),
        (b"some text", "not readable as audio"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n", "git lfs pull"),
    ],
)
def test_files_that_are_no_sound_are_named(tmp_path, content, said):
    path = tmp_path / "clip.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=said) as error:
        normalize_file(path, PLAIN)
    assert str(error.value).startswith(str(path)) and str(error.value).count(str(path)) == 1


@pytest.mark.parametrize("vad", ["silero", "webrtc"])
def test_silence_is_taken_out_and_speech_stays(spoken, vad):
    signal, length = spoken
    result = SpeechNormalizer(vad=vad)(signal, 16000)
    assert result.dtype == torch.float32 and result.dim() == 1
    assert 0.8 * length < len(result) < 1.3 * length
    assert (result**2).sum() > 0.99 * (signal**2).sum()
    kept = pieces(result, signal)
    assert len(kept) <= 10
    inside = [(start, end) for start, end in kept if end - start > 4800]
    assert any(end < 16000 * 3 for _, end in inside) and any(start > 16000 * 3.5 for start, _ in inside), "both"


def test_without_a_detector_all_is_kept(spoken):
    assert torch.equal(PLAIN(spoken[0], 16000), spoken[0])


@pytest.mark.parametrize("vad", ["silero", "webrtc"])
def test_speech_is_found_at_any_rate_and_number_of_channels(spoken, vad):
    signal, length = spoken
    tripled = torch.from_numpy(np.interp(np.arange(len(signal) * 3) / 3, np.arange(len(signal)), signal)).double()
    whole, result = (SpeechNormalizer(kind)(torch.stack([tripled] * 2, 1), 48000) for kind in ("none", vad))
    assert result.dtype == torch.float32
    assert (result**2).sum() > 0.99 * (whole**2).sum()
    assert 0.8 * length < len(result) < 1.3 * length


@pytest.mark.parametrize(
    "vad, samples",
    [
        ("silero", np.random.default_rng(0).normal(scale=0.1, size=16000)),
        ("silero", sine(440, 16000)),
        ("webrtc", np.full(1600, 0.01)),
    ],
)
def test_a_clip_without_speech_is_kept_whole(vad, samples):
    signal = torch.tensor(samples, dtype=torch.float32)
    assert torch.equal(SpeechNormalizer(vad=vad)(signal, 16000), signal)


def test_a_detector_has_no_memory(spoken):
    normalizer = SpeechNormalizer()
    first = normalizer(spoken[0], 16000)
    normalizer(torch.from_numpy(sine(440, 16000)), 16000)
    assert torch.equal(normalizer(spoken[0], 16000), first)


def test_it_takes_the_place_of_speechbrains_normalizer(tmp_path):
    path = tmp_path / "clip.wav"
    sf.write(path, np.stack([sine(300, 44100), sine(500, 44100)], 1), 44100)
    theirs, ours = (
        Pretrained(modules={}, hparams={"audio_normalizer": normalizer}).load_audio(str(path))
        for normalizer in (AudioNormalizer(), PLAIN)
    )
    assert ours.shape == theirs.shape == (16000,)
    torch.testing.assert_close(ours, theirs, atol=0.01, rtol=0)


def test_the_number_of_threads_stays_as_it_was(spoken, monkeypatch):
    # The detector's package sets it to one when it is imported.
    for module in [name for name in sys.modules if name.split(".")[0] == "silero_vad"]:
        monkeypatch.delitem(sys.modules, module)
    before = torch.get_num_threads()
    speech._silero.cache_clear()
    speech._silero_lstm.cache_clear()
    try:
        torch.set_num_threads(3)
        SpeechNormalizer()(spoken[0], 16000)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("vad", ["", "Silero", "energy", None])
def test_an_unknown_detector_is_refused(vad):
    with pytest.raises(ValueError, match="silero, webrtc, none"):
        SpeechNormalizer(vad=vad)


def test_settings_tell_all_choices_apart():
    choices = [SpeechNormalizer(vad) for vad in ("silero", "webrtc", "none")]
    assert len({str(choice.settings()) for choice in choices}) == 3
    assert SpeechNormalizer().settings() == SpeechNormalizer("silero").settings()


def test_webrtc_without_its_package_says_what_to_install(spoken, monkeypatch):
    def not_installed(package):
        raise PackageNotFoundError(package)

    monkeypatch.setitem(sys.modules, "webrtcvad", None)
    monkeypatch.setattr(speech, "version", not_installed)
    for use in (lambda vad: vad(spoken[0], 16000), lambda vad: vad.settings()):
        with pytest.raises(InputError, match="pip install webrtcvad-wheels"):
            use(SpeechNormalizer(vad="webrtc"))


def test_speech_of_many_signals_is_that_of_each(spoken):
    """Of lengths that do and do not end with a frame of the detector."""
    long, _ = spoken
    signals = [
        long[start : start + size] for start, size in ((0, 512 * 60), (9000, 30001), (20000, 512), (0, len(long)))
    ]
    signals.append(torch.zeros(8000))
    assert speech.silero_together(signals) == [speech.silero(signal) for signal in signals]
    assert speech.silero_together([]) == []


def test_probabilities_are_those_of_the_stream(spoken):
    _, network = speech._silero()
    signals = [spoken[0][:30001], spoken[0][9000:30000]]
    found = speech.silero_probabilities(signals)
    for signal, row in zip(signals, found, strict=True):
        frames = torch.nn.functional.pad(signal, (0, -len(signal) % 512)).split(512)
        network.reset_states()
        with torch.no_grad():
            expected = [float(network(frame, 16000)) for frame in frames]
        np.testing.assert_allclose(row[: len(frames)], expected, atol=silero.NEAR / 10)


def test_threads_hear_what_one_hears(spoken):
    signals = [spoken[0][start : start + 24000] for start in range(0, 12000, 1000)]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(speech.silero, signals)) == [speech.silero(signal) for signal in signals]


def test_a_signal_near_a_threshold_is_heard_alone(spoken, monkeypatch):
    heard = []
    monkeypatch.setattr(silero, "NEAR", 2.0)
    monkeypatch.setattr(speech, "silero", lambda signal: heard.append(signal) or [(0, 1)])
    assert speech.silero_together([spoken[0], spoken[0][:9000]]) == [[(0, 1)]] * 2 and len(heard) == 2
