"""Shards hold what was put in, once, whatever happens while they are made."""

import io
import json
import tarfile

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from ser_plugins import SpeechNormalizer
from ser_plugins.audio.speech import normalize_file
from ser_plugins.corpora import shards as module
from ser_plugins.corpora.shards import decode_flac, open_shards, read_shard, write_shards
from ser_plugins.corpora.speakers import SpeakerFolders, split_speakers
from ser_plugins.errors import InputError

NORMALIZER = SpeechNormalizer(vad="none")


@pytest.fixture
def corpus(tmp_path):
    """Six speakers with six utterances each, of 0.2 to 0.4 s."""
    rng = np.random.default_rng(0)
    for speaker in range(6):
        for take in range(6):
            path = tmp_path / "corpus" / f"id{speaker}" / "video" / f"{take}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, rng.uniform(-0.5, 0.5, 3200 + 500 * take), 16000)
    return SpeakerFolders(str(tmp_path / "corpus")).read()


@pytest.fixture
def split(corpus):
    return split_speakers(corpus, 2, 20, 0)


def write(split, folder, size=5, **options):
    return write_shards(*split, NORMALIZER, folder, shard_size=size, workers=1, **options)


def content(shards, part):
    return [utterance for shard in shards.part(part) for utterance in read_shard(shard.path)]


def test_each_utterance_is_in_one_shard_as_it_was_normalised(split, tmp_path):
    shards = write(split, tmp_path / "shards")
    for part, utterances in split[0].items():
        found = content(shards, part)
        assert sorted(name for name, _, _ in found) == sorted(utterances.table["path"])
        for name, speaker, data in found:
            assert name.startswith(f"{speaker}/")
            expected = normalize_file(utterances.root / name, NORMALIZER).numpy()
            np.testing.assert_allclose(decode_flac(data), expected, atol=1 / 32768)
    assert [shard.samples for shard in shards.part("train")] == [5, 5, 5, 5]
    assert shards.speakers == sorted(set(split[0]["train"].table["speaker"]))
    assert shards.index["faults"] == 0
    pd.testing.assert_frame_equal(shards.trials(), split[1], check_dtype=False)


def test_shards_are_plain_tar_files_of_flac(split, tmp_path):
    shards = write(split, tmp_path / "shards")
    with tarfile.open(shards.part("train")[0].path) as archive:
        names = archive.getnames()
        assert names[:2] == ["000000.flac", "000000.json"]
        assert soundfile.info(io.BytesIO(archive.extractfile(names[0]).read())).samplerate == 16000


def test_a_call_that_was_cut_off_is_gone_on_with(split, tmp_path, monkeypatch):
    expected = content(write(split, tmp_path / "whole"), "train")
    original, made = module._write_shard, []

    def cut_off(path, *args):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(path)
        original(path, *args)

    monkeypatch.setattr(module, "_write_shard", cut_off)
    with pytest.raises(KeyboardInterrupt):
        write(split, tmp_path / "shards")
    assert open_shards(tmp_path / "shards") is None
    times = {path: path.stat().st_mtime_ns for path in made}
    monkeypatch.setattr(module, "_write_shard", original)
    assert content(write(split, tmp_path / "shards"), "train") == expected
    assert {path: path.stat().st_mtime_ns for path in made} == times


def test_what_cannot_be_used_is_left_out_and_listed(split, corpus, tmp_path):
    bad = [split[0]["train"].table["path"].iloc[0], split[1]["first"].iloc[0]]
    (corpus.root / bad[0]).write_text("no audio")
    soundfile.write(corpus.root / bad[1], np.zeros(10), 16000)
    shards = write(split, tmp_path / "shards")
    assert sum(shard.samples for shard in shards.part("train")) == len(split[0]["train"].table) - 1
    assert not {bad[1]} & ({*shards.trials()["first"]} | {*shards.trials()["second"]})
    faults = pd.read_csv(tmp_path / "shards" / "faults.csv")
    assert sorted(faults["path"]) == sorted(bad) and shards.index["faults"] == 2


def test_other_settings_are_not_mixed(split, tmp_path):
    write(split, tmp_path / "shards")
    for changed in ({"size": 6}, {}):
        if not changed:
            split[0]["train"].table.drop(split[0]["train"].table.index[0], inplace=True)
        with pytest.raises(InputError, match="other settings or other audio"):
            write(split, tmp_path / "shards", **changed)
    (tmp_path / "shards" / "shards.json").unlink()
    with pytest.raises(InputError, match="was begun with other settings"):
        write(split, tmp_path / "shards", size=7)


def test_index_says_how_long_all_is(split, tmp_path):
    shards = write(split, tmp_path / "shards")
    lengths = [len(decode_flac(data)) for part in split[0] for _, _, data in content(shards, part)]
    index = json.loads((tmp_path / "shards" / "shards.json").read_text())
    assert index["seconds"] == pytest.approx(sum(lengths) / 16000)
    assert torch.tensor(list(index["parts"]["train"])).sum() == len(split[0]["train"].table)
