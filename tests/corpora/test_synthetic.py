"""The built-in corpus: what it promises, measured on its audio by means of the test's own."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ser_plugins.corpora import Synthetic
from ser_plugins.corpora.synthetic import EMOTIONS, LOWEST, SAMPLE_RATE, Voice, glottis, speak
from ser_plugins.errors import InputError

RAVDESS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")


@pytest.fixture(scope="module")
def corpus(audio):
    return Synthetic(str(audio / "synthetic"), n_speakers=20, n_takes=2).read()


@pytest.fixture(scope="module")
def clips(corpus):
    """The table with a column of waveforms."""
    return corpus.table.assign(wav=[sf.read(path)[0] for path in corpus.table["path"]])


def frames(wav):
    return np.lib.stride_tricks.sliding_window_view(wav, 640)[::160] * np.hanning(640)


def median_f0(wav):
    """Median pitch by autocorrelation over frames that are loud and periodic."""
    power = np.abs(np.fft.rfft(frames(wav), 2048)) ** 2
    correlation = np.fft.irfft(power)
    lags = np.arange(25, 267)  # 60 to 640 Hz
    # A window shortens long lags: dividing by its own autocorrelation undoes that.
    window = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(640), 2048)) ** 2)
    normal = correlation[:, lags] / window[lags] * window[0] / correlation[:, :1]
    # The first peak nearly as high as the highest: a multiple of the period is as good.
    peak = (normal >= np.roll(normal, 1, 1)) & (normal >= np.roll(normal, -1, 1))
    first = (peak & (normal > 0.9 * normal.max(1, keepdims=True))).argmax(1)
    periodic = (normal.max(1) > 0.6) & (correlation[:, 0] > 0.1 * correlation[:, 0].max())
    return SAMPLE_RATE / np.median(lags[first[periodic]])


def level(wav):
    return 10 * np.log10(np.mean(wav**2))


def log_spectra(wav):
    """Mean and deviation over time of 64 log-magnitude bands of equal width."""
    magnitude = np.abs(np.fft.rfft(frames(wav), 1024))[:, :512].reshape(-1, 64, 8).mean(2)
    return np.log(magnitude + 1e-3)


def by_emotion(clips, measure):
    return clips.assign(value=[measure(wav) for wav in clips["wav"]]).groupby("emotion")["value"].mean()


def test_the_table_is_complete_and_says_that_it_is_synthetic(corpus):
    assert corpus.name == "synthetic"
    assert corpus.synthetic
    assert corpus.licence == "Apache-2.0 (synthetic)"
    assert corpus.labels == RAVDESS
    assert len(corpus.table) == 20 * 8 * 2
    assert len(corpus.speakers) == 20
    assert set(corpus.table.groupby(["speaker", "emotion"]).size()) == {2}
    assert corpus.faults.empty
    assert set(corpus.table["fault"]) == {""}


def test_files_are_mono_16_khz_16_bit_and_short(corpus):
    for path in corpus.table["path"]:
        info = sf.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert 0.8 < info.duration < 1.9


def test_nothing_clips_and_nothing_is_lost_in_the_room(clips):
    for wav in clips["wav"]:
        assert abs(wav).max() < 1 - 2**-14
        assert level(wav) > level(wav[:800]) + 15, "speech stands out of the room's noise before it"


def test_the_same_bytes_in_any_folder_and_order(corpus, tmp_path):
    few = Synthetic(str(tmp_path / "few"), n_speakers=2, n_takes=1).read().table
    for path, name in zip(few["path"], few["id"], strict=True):
        again = corpus.table.set_index("id").loc[name, "path"]
        assert Path(path).read_bytes() == Path(again).read_bytes()
    backwards = [speak(0, speaker, emotion, 1) for speaker in (2, 1) for emotion in reversed(RAVDESS)]
    forwards = [speak(0, speaker, emotion, 1) for speaker in (1, 2) for emotion in RAVDESS]
    assert all(np.array_equal(a, b) for a, b in zip(reversed(backwards), forwards, strict=True))


def test_clips_differ_by_each_of_seed_speaker_emotion_and_take():
    clip = speak(0, 1, "happy", 1)
    for other in (speak(1, 1, "happy", 1), speak(0, 2, "happy", 1), speak(0, 1, "sad", 1), speak(0, 1, "happy", 7)):
        assert not np.array_equal(clip, other)


def test_another_seed_has_another_folder(tmp_path):
    assert Synthetic(str(tmp_path), seed=0).folder == Synthetic(str(tmp_path), seed=0, n_speakers=3).folder
    assert Synthetic(str(tmp_path), seed=0).folder != Synthetic(str(tmp_path), seed=1).folder


def test_complete_files_are_reused_and_damaged_ones_made_anew(tmp_path):
    demo = Synthetic(str(tmp_path), n_speakers=1, n_takes=1)
    paths = [Path(path) for path in demo.read().table["path"]]
    content = {path: path.read_bytes() for path in paths}
    for path in paths:
        os.utime(path, (1, 1))
    truncated, empty, missing, *whole = paths
    truncated.write_bytes(content[truncated][:-100])
    empty.write_bytes(b"")
    missing.unlink()
    (missing.parent / "killed.wav.part").write_bytes(b"RIFF")

    assert demo.read().table["path"].tolist() == [str(path) for path in paths]
    assert {path: path.read_bytes() for path in paths} == content
    assert all(path.stat().st_mtime == 1 for path in whole)


def test_two_runs_at_once_leave_whole_files(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        tables = list(pool.map(lambda _: Synthetic(str(tmp_path), n_speakers=1, n_takes=1).read().table, range(2)))
    assert tables[0].equals(tables[1])
    assert not list(tmp_path.rglob("*.part"))
    for path, emotion in zip(tables[0]["path"], tables[0]["emotion"], strict=True):
        assert np.allclose(sf.read(path)[0], speak(0, 1, emotion, 1), atol=2**-15)


@pytest.mark.parametrize("wrong", [{"n_speakers": 0}, {"n_takes": 0}, {"seed": -1}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(InputError):
        Synthetic(**wrong)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="--data_folder"):
        Synthetic(str(tmp_path / "file"), n_speakers=1, n_takes=1).read()


@pytest.mark.parametrize("hertz", [90.0, 150.0, 280.0])
def test_the_glottis_vibrates_at_the_pitch_asked_for(hertz):
    source, _ = glottis(np.full(100, hertz), 0.6, LOWEST, np.random.default_rng(0))
    assert median_f0(source) == pytest.approx(hertz, rel=0.01)


def test_aroused_emotions_are_higher_and_louder(clips):
    pitch, loudness = by_emotion(clips, median_f0), by_emotion(clips, level)
    for high in ("angry", "surprised", "fearful", "happy"):
        for low in ("sad", "calm", "neutral"):
            assert pitch[high] > 1.1 * pitch[low], (high, low)
    assert loudness["angry"] > loudness["sad"] + 8
    assert loudness.idxmax() == "angry"
    assert loudness.idxmin() == "sad"


def test_anger_is_bright_and_sadness_slow(clips):
    def brightness(wav):
        power = (np.abs(np.fft.rfft(wav)) ** 2)[: len(wav) // 4]  # below 4 kHz, where voice is
        return 10 * np.log10(power[len(power) // 4 :].sum() / power[: len(power) // 4].sum())

    assert by_emotion(clips, brightness)["angry"] > by_emotion(clips, brightness)["sad"] + 3
    assert by_emotion(clips, len).idxmax() == "sad"


def test_women_have_higher_formants_and_pitch_than_men():
    voices = [Voice.of(0, speaker) for speaker in range(1, 41)]
    male, female = voices[::2], voices[1::2]
    assert np.mean([v.tract for v in female]) > 1.1 * np.mean([v.tract for v in male])
    assert np.mean([v.f0 for v in female]) > 1.4 * np.mean([v.f0 for v in male])
    assert len({voice.tract for voice in voices}) == 40


def test_womens_spectra_are_mens_stretched(clips):
    """A shorter vocal tract moves all formants up: on a logarithmic axis, the whole envelope."""
    axis = np.arange(np.log2(300), np.log2(7000), 0.01)

    def envelope(wavs):
        power = np.mean([(np.abs(np.fft.rfft(frames(wav), 2048)) ** 2).mean(0) for wav in wavs], axis=0)
        track = np.log(np.interp(2**axis, np.arange(1025) * 16000 / 2048, power))
        return np.convolve(track, np.hanning(31) / np.hanning(31).sum(), "valid")

    female = clips["speaker"].str[-1].astype(int) % 2 == 0
    quiet = clips["emotion"].isin(["neutral", "calm"])
    men, women = envelope(clips["wav"][quiet & ~female]), envelope(clips["wav"][quiet & female])
    shifts = np.arange(60)
    fits = [np.corrcoef(men[: len(men) - 60], women[shift : len(women) - 60 + shift])[0, 1] for shift in shifts]
    assert 0.1 < 0.01 * shifts[np.argmax(fits)] < 0.35, "octaves; 1.16 is 0.21"


def accuracy(features, labels, folds, groups=None):
    model = make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"))
    return cross_val_score(model, features, labels, cv=folds, groups=groups).mean()


def test_emotions_of_unknown_speakers_are_learnable_but_not_trivial(clips):
    spectra = [log_spectra(wav) for wav in clips["wav"]]
    features = np.array([np.concatenate([s.mean(0), s.std(0), [len(s)]]) for s in spectra])
    emotion = clips["emotion"].to_numpy(dtype=object)
    speaker = clips["speaker"].to_numpy(dtype=object)
    assert 1 / len(EMOTIONS) + 0.2 < accuracy(features, emotion, GroupKFold(5), speaker) < 0.97


def test_speakers_are_identifiable(clips):
    features = np.array([log_spectra(wav).mean(0) for wav in clips["wav"]])
    folds = StratifiedKFold(4, shuffle=True, random_state=0)
    assert accuracy(features, clips["speaker"].to_numpy(dtype=object), folds) > 0.6
