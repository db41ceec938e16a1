"""Trees of speakers, their split, and lists of trials."""

import numpy as np
import pandas as pd
import pytest

from ser_plugins.corpora import Corpus
from ser_plugins.corpora.speakers import TRIAL_UTTERANCES, SpeakerFolders, read_trials, split_speakers
from ser_plugins.errors import InputError


def tree(root, files):
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def corpus(counts):
    rows = [(f"s{i}/{k}.wav", f"s{i}") for i, count in enumerate(counts) for k in range(count)]
    return Corpus("own", (), pd.DataFrame(rows, columns=["path", "speaker"]))


def test_voxceleb2_as_distributed(tmp_path):
    names = ["id2/v1/2.m4a", "id2/v1/1.m4a", "id1/v2/1.m4a", "id1/v1/9.m4a"]
    tree(tmp_path / "dev" / "aac", [*names, "id1/v1/notes.txt", "read.me", "id3/v/none.txt"])
    found = SpeakerFolders(str(tmp_path), "voxceleb2", ["dev/aac", "aac"]).read()
    assert (found.name, found.root) == ("voxceleb2", tmp_path / "dev" / "aac")
    assert found.table["path"].tolist() == sorted(names)
    assert found.table["speaker"].tolist() == ["id1", "id1", "id2", "id2"]


def test_a_row_is_no_python_object(tmp_path):
    tree(tmp_path, [f"id{s}/video/{n:05d}.wav" for s in range(4) for n in range(250)])
    table = SpeakerFolders(str(tmp_path)).read().table
    assert table.memory_usage(deep=True).sum() < 60 * len(table)


@pytest.mark.parametrize("below", [[""], ["dev/aac", "wav"]])
def test_what_is_no_tree_is_told(tmp_path, below):
    tree(tmp_path, ["wav/id1/1.wav", "wav/id2/notes.txt"])
    with pytest.raises(InputError, match="check --data_folder"):
        SpeakerFolders(str(tmp_path / "none"), "own", below).read()
    with pytest.raises(InputError, match="does not hold two folders of speakers"):
        SpeakerFolders(str(tmp_path), "own", below).read()
    with pytest.raises(InputError, match="give --data_folder"):
        SpeakerFolders(None, "own", below).read()


def test_split_holds_speakers_out():
    whole = corpus([1, 2, 3, 30, 4, 25, 2, 6])
    parts, pairs = split_speakers(whole, valid_speakers=3, trial_pairs=100, seed=4)
    names = {name: set(part.table["speaker"]) for name, part in parts.items()}
    assert len(names["trials"]) == 3 and not names["trials"] & names["train"]
    assert names["trials"] | names["train"] == set(whole.table["speaker"])
    rest = whole.table[~whole.table["speaker"].isin(names["trials"])]
    assert sorted([*parts["train"].table["path"], *parts["valid"].table["path"]]) == sorted(rest["path"])
    counts = rest["speaker"].value_counts()
    assert parts["valid"].table["speaker"].value_counts().to_dict() == {s: 1 for s, n in counts.items() if n > 2}
    assert parts["trials"].table["speaker"].value_counts().max() <= TRIAL_UTTERANCES
    assert set(pairs["first"]) | set(pairs["second"]) <= set(parts["trials"].table["path"])
    same = pairs["first"].str.split("/").str[0] == pairs["second"].str.split("/").str[0]
    assert (same == pairs["target"].astype(bool)).all()
    assert not pairs.duplicated(["first", "second"]).any() and (pairs["first"] != pairs["second"]).all()
    assert 0 < pairs["target"].sum() <= 50 and (pairs["target"] == 0).sum() <= 50


def test_split_is_a_function_of_the_seed():
    whole = corpus([5] * 12)
    drawn = [split_speakers(whole, 4, 60, seed) for seed in (1, 1, 2)]
    pd.testing.assert_frame_equal(drawn[0][1], drawn[1][1])
    assert set(drawn[0][0]["trials"].table["speaker"]) != set(drawn[2][0]["trials"].table["speaker"])


@pytest.mark.parametrize("count", [1, 4, 5])
def test_too_few_speakers_to_hold_out_are_told(count):
    with pytest.raises(InputError, match=f"cannot hold out {count} of 5 speakers"):
        split_speakers(corpus([1, 2, 2, 2, 1]), count, 10, 0)


def test_speakers_of_too_few_utterances_to_validate_on_are_told():
    with pytest.raises(InputError, match="no speaker that is trained on has three utterances"):
        split_speakers(corpus([2] * 6), 2, 10, 0)


def test_a_list_of_trials(tmp_path):
    (tmp_path / "veri.txt").write_text("1 id1/v/1.wav id1/v/2.wav\n0 id1/v/1.wav id2/v/1.wav\n\n")
    found, pairs = read_trials(tmp_path / "veri.txt", tmp_path / "wav")
    assert found.root == tmp_path / "wav"
    assert found.table.to_numpy().tolist() == [["id1/v/1.wav", "id1"], ["id1/v/2.wav", "id1"], ["id2/v/1.wav", "id2"]]
    assert pairs["target"].tolist() == [1, 0] and pairs["second"].tolist() == ["id1/v/2.wav", "id2/v/1.wav"]
    (tmp_path / "veri.txt").write_text("1 a b\n2 a b")
    with pytest.raises(InputError, match="trial 2: give 0 or 1 and two paths, not '2 a b'"):
        read_trials(tmp_path / "veri.txt", tmp_path)
    with pytest.raises(InputError, match="check --trials_file"):
        read_trials(tmp_path / "none.txt", tmp_path)


def test_speakers_of_a_million_rows_are_split_in_seconds():
    names = np.char.add("id", np.arange(5994).astype(str))
    table = pd.DataFrame({"path": np.arange(1_000_000).astype(str), "speaker": names[np.arange(1_000_000) % 5994]})
    parts, pairs = split_speakers(Corpus("large", (), table), 50, 10_000, 1)
    assert len(parts["valid"].table) == 5944 and len(parts["trials"].table) == 50 * TRIAL_UTTERANCES
    assert len(pairs) == 10_000 and pairs["target"].sum() == 5000


def test_several_folders_are_one_corpus(tmp_path):
    tree(tmp_path, ["one/ann/1.wav", "one/bob/1.wav", "two/ann/x/2.wav", "three/eve/1.wav"])
    found = SpeakerFolders([str(tmp_path / "two"), str(tmp_path / "one")]).read()
    assert found.root == tmp_path
    assert found.table["path"].tolist() == ["one/ann/1.wav", "one/bob/1.wav", "two/ann/x/2.wav"]
    assert found.table["speaker"].tolist() == ["one/ann", "one/bob", "two/ann"]
    with pytest.raises(InputError, match=r"four.*; check --data_folder"):
        SpeakerFolders([str(tmp_path / "one"), str(tmp_path / "four")]).read()


def test_links_are_followed_and_hidden_files_are_not_read(tmp_path):
    tree(tmp_path, ["a/ann/1.wav", "a/ann/._1.wav", "a/.hidden/1.wav", "b/video/2.wav"])
    (tmp_path / "a" / "bob").mkdir()
    (tmp_path / "a" / "bob" / "video").symlink_to(tmp_path / "b" / "video")
    (tmp_path / "a" / "bob" / "loop").symlink_to(tmp_path / "a" / "bob")
    found = SpeakerFolders([str(tmp_path / "a"), f"{tmp_path}/a/"]).read()  # one folder in two spellings
    assert found.table["path"].tolist() == ["ann/1.wav", "bob/video/2.wav"]
