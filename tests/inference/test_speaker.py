"""Speaker statistics against normalisation by hand over all utterances of a speaker."""

import copy
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from ser_plugins import load
from ser_plugins.commands import main
from ser_plugins.errors import InputError
from ser_plugins.inference import adapt, embed, predict, speaker, speaker_statistics, timeline

LEVELS = {"quiet": 0.01, "loud": 0.3}
KINDS = ["features", "embeddings", "features+embeddings"]
# config.json of earlier versions: arguments of mean_var_norm and of embedding_model.
OLD = {
    "features": ({"axis": "speaker"}, {}),
    "embeddings": ({"axis": "utterance"}, {"speaker_centred": True}),
    "features+embeddings": ({"axis": "speaker"}, {"speaker_centred": True}),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory, write_model):
    """Model folders by what is normalised, and those of earlier versions."""
    root = tmp_path_factory.mktemp("speakers")
    new = {name: write_model(root / name, "s3", speaker_normalization=name) for name in KINDS if name != "embeddings"}
    for name, (norm, encoder) in OLD.items():
        folder = shutil.copytree(new["features"], root / f"old {name}")
        config = json.loads((folder / "config.json").read_text())
        config["modules"]["mean_var_norm"]["arguments"] = norm
        arguments = config["modules"]["embedding_model"]["arguments"]
        del arguments["speaker_normalization"]
        config["modules"]["embedding_model"]["arguments"] = {**arguments, **encoder}
        (folder / "config.json").write_text(json.dumps(config))
        new[f"old {name}"] = folder
    return new


@pytest.fixture(scope="module")
def models(folders):
    return {name: load(folder, device="cpu") for name, folder in folders.items()}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Two speakers, a folder each."""
    place, rng = tmp_path_factory.mktemp("recordings"), np.random.default_rng(0)
    for name, level in LEVELS.items():
        (place / name).mkdir()
        for number in range(5):
            samples = rng.normal(0, level * (1 + number), round(16000 * rng.uniform(0.3, 1))).clip(-1, 1)
            soundfile.write(place / name / f"{number}.wav", samples, 16000)
    return place


def by_hand(model, folder, kind):
    """Embeddings of a speaker's files, normalised over all of them with numpy."""
    spoken = [model.mods.compute_features(model.load_audio(path)[None])[0].numpy() for path in sorted(folder.iterdir())]
    frames = np.concatenate(spoken)
    mean = frames.mean(0)
    deviation = np.sqrt(np.square(frames - mean).mean())
    if kind == "embeddings":
        feats = [torch.from_numpy((one - one.mean()) / one.std())[None] for one in spoken]
    else:
        feats = [torch.from_numpy((one - mean) / deviation)[None] for one in spoken]
    with torch.no_grad():
        embeddings = np.stack([model.mods.embedding_model(one)[0, 0].numpy() for one in feats])
    return embeddings if kind == "features" else embeddings - embeddings.mean(0)


@pytest.mark.parametrize("name", [*(kind for kind in KINDS if kind != "embeddings"), *(f"old {kind}" for kind in OLD)])
def test_embeddings_of_a_known_speaker_are_those_normalised_by_hand(models, recordings, name):
    model, kind = models[name], name.removeprefix("old ")
    before = copy.deepcopy(model.mods.state_dict()), {name: dict(vars(module)) for name, module in model.mods.items()}
    alone = np.stack(embed(model, recordings / "loud")["embedding"])
    for speaker_name in LEVELS:
        own = recordings / speaker_name
        found = np.stack(embed(model, own, speaker=speaker_statistics(model, own))["embedding"])
        np.testing.assert_allclose(found, by_hand(model, own, kind), rtol=1e-3, atol=1e-4)
    assert not np.allclose(found, alone, atol=1e-3)
    np.testing.assert_array_equal(np.stack(embed(model, recordings / "loud")["embedding"]), alone)
    assert all(torch.equal(one, before[0][name]) for name, one in model.mods.state_dict().items())
    assert {name: dict(vars(module)) for name, module in model.mods.items()} == before[1]


def test_all_ways_of_use_take_the_same_statistics(models, recordings):
    model, path = models["features+embeddings"], recordings / "loud" / "4.wav"
    statistics = speaker_statistics(model, recordings / "loud")
    embedding = torch.tensor(embed(model, path, speaker=statistics)["embedding"][0])
    torch.testing.assert_close(model.encode_file(path, speaker=statistics)[0, 0], embedding, atol=1e-5, rtol=0)
    row = predict(model, path, speaker=statistics).iloc[0]
    scores, _, _, (label,) = model.classify_file(path, speaker=statistics)
    np.testing.assert_allclose([row[name] for name in ("neutral", "happy", "sad")], scores[0].exp(), atol=1e-5)
    assert row["emotion"] == label
    window = timeline(model, path, speaker=statistics).iloc[0]
    np.testing.assert_allclose(window[["happy", "sad"]].tolist(), row[["happy", "sad"]].tolist(), atol=1e-5)
    assert predict(model, path)["happy"][0] != pytest.approx(row["happy"], abs=1e-4)


def test_the_command_takes_the_speaker_and_warns_without(folders, recordings, models, tmp_path, caplog):
    output = tmp_path / "table.parquet"
    words = ["embed", str(recordings / "loud"), "--model", str(folders["features"]), "--jobs", "0"]
    words += ["--output", str(output)]
    main(words)
    assert "give --speaker" in caplog.text
    caplog.clear()
    main([*words, "--speaker", str(recordings / "loud")])
    assert not caplog.text
    known = np.stack(pd.read_parquet(output)["embedding"])
    expected = by_hand(models["features"], recordings / "loud", "features")
    np.testing.assert_allclose(known, expected, rtol=1e-3, atol=1e-4)


def test_recordings_that_cannot_be_used_are_named(models, model, recordings, tmp_path, caplog):
    (tmp_path / "empty.wav").touch()
    with pytest.raises(InputError, match=r"none of 1 recordings of the speaker could be used; the first: .*empty.wav"):
        speaker_statistics(models["features"], tmp_path / "empty.wav")
    speaker_statistics(models["features"], [tmp_path / "empty.wav", recordings / "loud"])
    assert "1 of 6 recordings of the speaker could not be used" in caplog.text
    with pytest.raises(InputError, match="has no speaker normalisation; leave --speaker out"):
        speaker_statistics(model, recordings / "loud")
    with pytest.raises(InputError, match="speaker=speaker_statistics"):
        adapt(model, recordings / "loud")


def test_a_long_recording_has_the_statistics_of_its_parts(models, recordings, tmp_path, monkeypatch):
    parts = [soundfile.read(path)[0] for path in sorted((recordings / "loud").iterdir())]
    soundfile.write(tmp_path / "whole.wav", np.concatenate(parts), 16000)
    found = []
    for seconds in (speaker.SECONDS, 0.5):
        monkeypatch.setattr(speaker, "SECONDS", seconds)
        found.append(speaker_statistics(models["features"], tmp_path / "whole.wav").features)
    torch.testing.assert_close(*found, rtol=0.02, atol=0.02)  # except for the frames at the cuts
    soundfile.write(tmp_path / "silence.wav", np.zeros(32000), 16000)
    with pytest.raises(InputError, match="it has no speech"):
        speaker_statistics(models["features"], tmp_path / "silence.wav")
