"""Models that normalise by speaker, told who speaks."""

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from ser_plugins import load
from ser_plugins.commands import main
from ser_plugins.errors import InputError
from ser_plugins.inference import adapt, embed, voice
from ser_plugins.inference.voice import forget, told_voice

LEVELS = {"quiet": 0.01, "loud": 0.3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_model):
    return write_model(tmp_path_factory.mktemp("voices") / "model", "s3", norm_axis="speaker")


@pytest.fixture
def model(folder):
    return load(folder, device="cpu")


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    """Two speakers, one folder each."""
    place, rng = tmp_path_factory.mktemp("voices"), np.random.default_rng(0)
    for name, level in LEVELS.items():
        (place / name).mkdir()
        for number in range(5):
            samples = rng.normal(0, level * (1 + number), round(16000 * rng.uniform(0.3, 1))).clip(-1, 1)
            soundfile.write(place / name / f"{number}.wav", samples, 16000)
    return place


def by_hand(model, folder):
    """Embeddings of a speaker's files, normalised over all of them with numpy."""
    spoken = [model.mods.compute_features(model.load_audio(path)[None])[0].numpy() for path in sorted(folder.iterdir())]
    frames = np.concatenate(spoken)
    mean = frames.mean(0)
    deviation = np.sqrt(np.square(frames - mean).mean())
    feats = [torch.from_numpy((one - mean) / deviation)[None] for one in spoken]
    with torch.no_grad():
        return np.stack([model.mods.embedding_model(one)[0, 0].numpy() for one in feats])


def test_files_of_a_known_speaker_are_normalised_together(model, voices):
    alone = np.stack(embed(model, voices / "loud")["embedding"])
    for name in LEVELS:
        adapt(model, voices / name)
        found = np.stack(embed(model, voices / name)["embedding"])
        np.testing.assert_allclose(found, by_hand(model, voices / name), rtol=1e-3, atol=1e-4)
    assert not np.allclose(found, alone, atol=1e-3)


@pytest.mark.parametrize("axis", ["utterance", "speaker"])
def test_embeddings_of_a_known_speaker_lose_their_mean(write_model, tmp_path, voices, axis):
    folder = write_model(tmp_path / "model", "s3", norm_axis=axis, speaker_centred=True)
    model = load(folder, device="cpu")
    stranger = np.stack(embed(model, voices / "loud")["embedding"])
    adapt(model, voices / "quiet")
    adapt(model, voices / "loud")
    found = np.stack(embed(model, voices / "loud")["embedding"])
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-4)
    model.mods.embedding_model.speaker = None
    raw = np.stack(embed(model, voices / "loud")["embedding"])
    np.testing.assert_allclose(found, raw - raw.mean(0), rtol=1e-3, atol=1e-4)
    assert np.allclose(raw, stranger, atol=1e-3) == (axis == "utterance") and not np.allclose(found, raw, atol=1e-3)
    adapt(model, voices / "loud")
    assert len(told_voice(model)) == found.shape[1] + (model.mods.mean_var_norm.speaker is not None and 258)
    forget(model)
    np.testing.assert_allclose(np.stack(embed(model, voices / "loud")["embedding"]), stranger, atol=1e-4)
    assert told_voice(model) is None


def test_the_command_takes_the_speaker_and_asks_for_one(folder, voices, model, tmp_path, caplog):
    output = tmp_path / "table.parquet"
    words = ["embed", str(voices / "loud"), "--model", str(folder), "--jobs", "0", "--output", str(output)]
    main(words)
    assert "give --speaker" in caplog.text
    unknown = np.stack(pd.read_parquet(output)["embedding"])
    caplog.clear()
    main([*words, "--speaker", str(voices / "loud")])
    assert not caplog.text
    known = np.stack(pd.read_parquet(output)["embedding"])
    np.testing.assert_allclose(known, by_hand(model, voices / "loud"), rtol=1e-3, atol=1e-4)
    assert not np.allclose(known, unknown, atol=1e-3)


def test_what_cannot_be_used_is_told(model, voices, tmp_path, write_model, caplog):
    (tmp_path / "empty.wav").touch()
    with pytest.raises(InputError, match=r"none of 1 recordings of the speaker could be used; the first: .*empty.wav"):
        adapt(model, tmp_path / "empty.wav")
    adapt(model, [tmp_path / "empty.wav", voices / "loud"])
    assert "1 of 6 recordings of the speaker could not be used" in caplog.text
    other = load(write_model(tmp_path / "model", "s3"), device="cpu")
    with pytest.raises(InputError, match="does not normalise by speaker; leave --speaker out"):
        adapt(other, voices / "loud")


def test_a_long_recording_tells_the_voice_as_its_parts_do(model, voices, tmp_path, monkeypatch):
    parts = [soundfile.read(path)[0] for path in sorted((voices / "loud").iterdir())]
    whole = np.concatenate(parts)
    soundfile.write(tmp_path / "whole.wav", whole, 16000)
    told = []
    for seconds in (voice.SECONDS, 0.5):
        monkeypatch.setattr(voice, "SECONDS", seconds)
        adapt(model, tmp_path / "whole.wav")
        told.append(model.mods.mean_var_norm.speaker)
    torch.testing.assert_close(*told, rtol=0.02, atol=0.02)  # but for the frames at the cuts
    soundfile.write(tmp_path / "silence.wav", np.zeros(32000), 16000)
    with pytest.raises(InputError, match="no speech is heard"):
        adapt(model, tmp_path / "silence.wav")
