"""Tables of files against the files one by one."""

import os
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from ser_plugins import load
from ser_plugins.audio.speaker import SpeakerStatistics
from ser_plugins.corpora.synthetic import speak
from ser_plugins.errors import InputError
from ser_plugins.inference import batches, embed, files, predict
from ser_plugins.inference.files import find_files

LABELS = ["neutral", "happy", "sad"]
BAD = {"empty.wav", "noise.mp3", "silent.wav", "short.wav"}


def good(frame):
    return frame[frame["error"].isna()]


@pytest.mark.parametrize(("jobs", "chunk"), [(0, 1), (2, 5), (0, 256)])
def test_embeddings_are_those_of_each_file_alone(model, clips, monkeypatch, jobs, chunk):
    monkeypatch.setattr(batches, "CHUNK_FILES", chunk)
    frame = embed(model, clips, jobs=jobs)
    assert list(frame.columns) == ["path", "seconds", "embedding", "warning", "error"]
    assert list(frame["path"]) == find_files([clips])
    assert {Path(path).name for path in frame["path"][frame["error"].notna()]} == BAD
    for row in good(frame).itertuples():
        np.testing.assert_allclose(row.embedding, model.encode_file(row.path)[0, 0], atol=1e-5)
        assert row.embedding.dtype == np.float32


def test_predictions_are_those_of_the_stock_interface(model, clips):
    frame = good(predict(model, clips))
    for row in frame.to_dict("records"):
        scores, best, _, (label,) = model.classify_file(row["path"])
        np.testing.assert_allclose([row[name] for name in LABELS], scores[0].exp(), atol=1e-5)
        assert row["emotion"] == label and row["probability"] == pytest.approx(float(best.exp()), abs=1e-5)


def test_a_subset_of_the_labels_is_all_there_is(model, clips):
    frame, whole = good(predict(model, clips, labels=["sad", "neutral"])), good(predict(model, clips))
    expected = whole[["sad", "neutral"]].div(whole["sad"] + whole["neutral"], axis=0)
    np.testing.assert_allclose(frame[["sad", "neutral"]], expected, atol=1e-6)
    assert "happy" not in frame and set(frame["emotion"]) <= {"sad", "neutral"}
    assert list(frame["emotion"]) == list(expected.idxmax(axis=1))


def test_an_unknown_label_is_an_error_that_lists_the_known_ones(model, clips):
    with pytest.raises(InputError, match=r"no label 'glad'; it has neutral, happy, sad$"):
        predict(model, clips, labels=["happy", "glad"])


def test_a_low_probability_is_unknown(model, clips):
    plain = good(predict(model, clips))
    limit = plain["probability"].median()
    found = good(predict(model, clips, unknown=limit))
    assert found["emotion"].tolist() == plain["emotion"].where(plain["probability"] >= limit, "unknown").tolist()
    assert 0 < (found["emotion"] == "unknown").sum() < len(found)
    pd.testing.assert_frame_equal(found.drop(columns="emotion"), plain.drop(columns="emotion"))
    with pytest.raises(InputError, match=r"unknown is 1.5; give a probability from 0 to 1"):
        predict(model, clips, unknown=1.5)


def test_speech_found_together_is_that_of_each_alone(tmp_path, write_model, caplog):
    """Silero over many signals at once, of a model whose labels are speakers."""
    model = load(write_model(tmp_path / "model", "s3", vad="silero", labels=["ann", "bob"], polarity={}), device="cpu")
    rng = np.random.default_rng(0)
    for number in range(6):
        pause = rng.normal(0, 1e-3, round(16000 * rng.uniform(0.2, 1)))
        samples = np.concatenate([pause, speak(number, number, "angry", number), pause])
        soundfile.write(tmp_path / f"{number}.wav", samples, 16000)
    frame = embed(model, tmp_path / "*.wav")
    assert len(frame) == 6
    for row in frame.itertuples():
        np.testing.assert_allclose(row.embedding, model.encode_file(row.path)[0, 0], atol=1e-5)
    predict(model, tmp_path / "0.wav")
    assert "are not known emotions" in caplog.text


def test_files_are_found_once_and_in_order(tmp_path, monkeypatch):
    for name in ("b/2.wav", "b/10.FLAC", "a.m4a", "b/.hidden.wav", "b/text.txt", "c/3.wav", "c/odd.raw"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "loop").symlink_to(tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    assert find_files(["c/3.wav", "b", ".", "c/../gone.wav"]) == [
        "c/3.wav",
        "b/10.FLAC",
        "b/2.wav",
        "a.m4a",
        "c/../gone.wav",
    ]
    assert find_files(["*/*.wav", "c/odd.raw"]) == ["b/2.wav", "c/3.wav", "c/odd.raw"]
    (tmp_path / "[x].wav").touch()
    assert find_files(["[x].wav"]) == ["[x].wav"]
    assert find_files(["gone [1].wav", "c/3.wav"]) == [
        "gone [1].wav",
        "c/3.wav",
    ]  # reading them fails later
    (tmp_path / "none").mkdir()
    for path in ("none", "*.ogg"):
        with pytest.raises(InputError, match=r"^no (sound )?file"):
            find_files([path])


def test_batches_hold_little_padding():
    seconds = np.random.default_rng(0).exponential(4, 500).tolist()
    found = batches.make_batches(seconds, 60, 16)
    assert sorted(row for batch in found for row in batch) == list(range(500))
    padded = [len(batch) * max(seconds[row] for row in batch) for batch in found]
    assert all(total <= 60 or len(batch) == 1 for batch, total in zip(found, padded, strict=True))
    assert sum(padded) < 1.2 * sum(seconds)
    pieces = list(batches.make_chunks(seconds))
    assert [row for piece in pieces for row in piece] == list(range(500))
    assert max(len(piece) for piece in pieces) <= 256


def test_a_file_whose_process_dies_is_a_row_with_an_error(model, clips, monkeypatch):
    read = files.read_audio

    def deadly(path, *limit):
        if path.endswith(("clip03.WAV", "clip10.flac")):
            os.kill(os.getpid(), signal.SIGKILL)
        return read(path, *limit)

    expected = embed(model, clips)
    monkeypatch.setattr(files, "read_audio", deadly)
    monkeypatch.setattr("ser_plugins.inference.utterances.GROUP_SECONDS", 2.0)
    frame = embed(model, clips, jobs=2)
    dead = frame["path"].str.endswith(("clip03.WAV", "clip10.flac"))
    assert dead.sum() == 2 and frame["error"][dead].str.contains("the process that read it died").all()
    pd.testing.assert_frame_equal(frame[~dead], expected[~dead])


def test_a_half_file_has_a_warning(model, tmp_path):
    path = tmp_path / "half.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 32000), 16000)
    whole = predict(model, path)
    assert whole["warning"].isna().all()
    path.write_bytes(path.read_bytes()[:32044])
    frame = predict(model, path)
    assert frame["warning"][0].startswith("only 1.00 s of 2.00 s could be read") and frame["error"].isna().all()
    assert frame["emotion"].notna().all() and list(frame.columns[-2:]) == ["warning", "error"]


def test_a_sample_that_is_beyond_all_is_an_error(model, tmp_path):
    samples = np.random.default_rng(0).normal(0, 0.1, 32000)
    samples[16000] = 1e38
    soundfile.write(tmp_path / "huge.wav", samples, 16000, subtype="FLOAT")
    frame = predict(model, tmp_path / "huge.wav")
    assert "huge.wav: audio holds a sample of 1e+38, where full scale is 1" in frame["error"][0]
    with pytest.raises(InputError, match=r"huge\.wav: audio holds a sample of 1e\+38"):
        model.classify_file(tmp_path / "huge.wav")


def test_a_pipe_is_an_error_at_once(model, clips, tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    frame = predict(model, [tmp_path / "pipe.wav", clips / "clip01.WAV"])
    assert "is a pipe" in frame["error"][0] and frame["error"].isna()[1]


@pytest.mark.parametrize("samples", [np.zeros((8000, 1)), np.random.default_rng(0).normal(0, 0.1, (8000, 1)) * [1, -1]])
def test_silence_has_the_same_error_everywhere(model, tmp_path, samples):
    path = tmp_path / "silent.wav"
    soundfile.write(path, samples, 16000)
    (told,) = predict(model, path)["error"]
    assert told == f"{path}: it is silent; record it again"
    for use in (model.load_audio, model.classify_file, model.encode_file):
        with pytest.raises(InputError) as error:
            use(path)
        assert str(error.value) == told


def test_a_file_that_is_too_long_is_a_row_with_an_error(model, clips, monkeypatch):
    monkeypatch.setattr(files, "MAX_SECONDS", 0.5)
    frame = predict(model, clips)
    long = frame[frame["seconds"] > 0.5]
    assert not long.empty and long["emotion"].isna().all()
    assert long["error"].str.contains("too long|silent").all()


def test_channels_that_cancel_each_other_are_silent(model, tmp_path):
    samples = np.random.default_rng(0).normal(scale=0.1, size=8000)
    soundfile.write(tmp_path / "opposed.wav", np.stack([samples, -samples], 1), 16000)
    frame = predict(model, [tmp_path / "opposed.wav"])
    assert frame["emotion"].isna().all() and "it is silent" in frame["error"][0]


def test_names_that_are_no_text_are_kept_readable(model, tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff.wav"
    frame = predict(model, [os.fsdecode(path)])
    assert frame["path"][0].endswith("/\ufffd.wav") and "missing" in frame["error"][0]
    samples = np.random.default_rng(0).normal(scale=0.1, size=8000)
    soundfile.write(tmp_path / "named.wav", samples, 16000)
    os.rename(tmp_path / "named.wav", path)
    frame = predict(model, [os.fsdecode(path)])
    assert frame["path"][0].endswith("/\ufffd.wav") and frame["error"].isna().all() and frame["seconds"][0] == 0.5


def test_random_numbers_of_the_caller_stay(model, clips):
    state = torch.get_rng_state()
    embed(model, clips, jobs=1)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "speaker",
    [SpeakerStatistics(embedding=torch.full((12,), torch.nan)), SpeakerStatistics(embedding=torch.full((12,), -3e38))],
    ids=["not a number", "too large to classify"],
)
def test_an_output_that_is_not_finite_is_a_row_with_an_error(model, clips, speaker):
    """The second one overflows in the sum of the classifier, as extreme samples do."""
    paths = sorted(clips.glob("clip*.WAV"))[:2]
    frame = predict(model, [*paths, clips / "empty.wav"], speaker=speaker)
    assert frame[["emotion", "probability", *LABELS]].isna().all(axis=None)
    for row, path in enumerate(paths):
        assert frame["error"][row].startswith(f"{path}: the output of the model is not finite; check")
    assert "empty.wav" in frame["error"][2]


def test_one_file_that_is_not_finite_leaves_the_others(model, tmp_path, monkeypatch):
    for name, level in (("a", 0.1), ("b", 0.2), ("c", 0.3)):
        soundfile.write(tmp_path / f"{name}.wav", np.random.default_rng(0).normal(0, level, 8000), 16000)
    expected = embed(model, tmp_path)
    plain = batches.embed

    def spoiled(modules, wavs, *more):
        embeddings = plain(modules, wavs, *more)
        return embeddings.masked_fill((wavs.std(1) > 0.25)[:, None, None], torch.inf)

    monkeypatch.setattr(batches, "embed", spoiled)
    found = embed(model, tmp_path)
    np.testing.assert_array_equal(np.stack(found["embedding"][:2]), np.stack(expected["embedding"][:2]))
    assert found["embedding"][2] is None and "not finite" in found["error"][2]
