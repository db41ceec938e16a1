"""Cross-validation by speaker: properties that hold for any corpus, and the paper's blocks."""

import csv
import hashlib
import io
import shutil
import subprocess
from collections import Counter

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_plugins.corpora import cremad, ravdess
from ser_plugins.corpora.corpus import Corpus
from ser_plugins.corpora.folds import blocks, fold_parts, training_ids, write_folds
from ser_plugins.errors import InputError

EMOTIONS = ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]


def corpus_of(speakers, **columns):
    """A corpus with one utterance for each entry of ``speakers``."""
    ids = [f"clip{index}" for index in range(len(speakers))]
    table = pd.DataFrame({"id": ids, "path": ids, "emotion": "calm", "speaker": speakers, "fault": "", **columns})
    return Corpus("test", tuple(sorted({"calm", "happy", *table["emotion"]})), table)


def published(name):
    """RAVDESS or CREMA-D without files."""
    if name == "ravdess":
        stems = ravdess.file_stems()
        return corpus_of([stem.split("-")[-1] for stem in stems], id=stems)
    stems = cremad.file_stems()
    return corpus_of([stem.split("_")[0] for stem in stems], id=stems)


@st.composite
def divisions(draw):
    """Speakers of utterances in any order and number, and a number of folds that they suffice for."""
    count = draw(st.integers(3, 40))
    names = draw(st.permutations([f"s{number}" for number in range(count)]))
    more = draw(st.lists(st.sampled_from(names), max_size=60))
    return draw(st.permutations([*names, *more])), draw(st.integers(3, count))


@given(divisions())
@settings(deadline=None, max_examples=20)
def test_every_division_is_by_speaker_and_complete(division):
    speakers, n_folds = division
    corpus = corpus_of(speakers)
    everything = set(corpus.table["id"])
    block = blocks(corpus, n_folds)

    native = list(dict.fromkeys(speakers))
    numbers = [block[speaker] for speaker in native]
    assert set(block) == set(native)
    assert numbers == sorted(numbers), "blocks are consecutive in native order"
    sizes = Counter(numbers)
    assert sorted(sizes) == list(range(1, n_folds + 1))
    assert max(sizes.values()) - min(sizes.values()) <= 1

    folds = [fold_parts(corpus, fold, n_folds) for fold in range(1, n_folds + 1)]
    for fold, parts in enumerate(folds, 1):
        assert list(parts) == ["train", "valid", "test"]
        ids = [name for part in parts.values() for name in part["id"]]
        assert len(ids) == len(speakers) and set(ids) == everything
        voices = [speaker for part in parts.values() for speaker in set(part["speaker"])]
        assert len(voices) == len(set(voices)), "a speaker is in two parts"
        assert {block[speaker] for speaker in parts["test"]["speaker"]} == {fold}
        following = folds[fold % n_folds]
        assert parts["valid"]["id"].tolist() == following["test"]["id"].tolist()
        for part in parts.values():
            assert part["id"].tolist() == [name for name in corpus.table["id"] if name in set(part["id"])]
            assert part.index.tolist() == list(range(len(part)))
    for name in ("valid", "test"):
        visited = Counter(clip for parts in folds for clip in parts[name]["id"])
        assert visited == dict.fromkeys(everything, 1)


def test_cremads_blocks_are_the_papers():
    block = blocks(published("cremad"), 10)
    members = {number: [int(speaker) for speaker in block if block[speaker] == number] for number in range(1, 11)}
    assert members[1] == list(range(1001, 1010))
    assert members[2] == list(range(1010, 1019))
    assert members[10] == list(range(1082, 1092))


def test_ravdess_blocks_have_two_or_three_actors():
    block = blocks(published("ravdess"), 10)
    assert Counter(Counter(block.values()).values()) == {2: 6, 3: 4}
    assert [speaker for speaker in block if block[speaker] == 1] == ["01", "02"]


@pytest.mark.parametrize("name, widest", [("ravdess", 3 / 24), ("cremad", 10 / 91)])
def test_parts_are_about_80_10_10(name, widest):
    corpus = published(name)
    shares = [
        {part: len(rows) / len(corpus.table) for part, rows in fold_parts(corpus, fold).items()}
        for fold in range(1, 11)
    ]
    means = pd.DataFrame(shares).mean()
    assert means.to_dict() == pytest.approx({"train": 0.8, "valid": 0.1, "test": 0.1})
    assert max(share["test"] for share in shares) == pytest.approx(widest, rel=0.01)
    assert min(share["train"] for share in shares) > 0.74


def test_folds_of_the_corpus_itself_go_before():
    corpus = corpus_of(["a", "b", "c", "d", "a"], fold=[2, 3, 1, 2, 2])
    parts = fold_parts(corpus, 2, 3)
    assert {name: list(rows["speaker"]) for name, rows in parts.items()} == {
        "train": ["c"],
        "valid": ["b"],
        "test": ["a", "d", "a"],
    }
    assert list(fold_parts(corpus, 3, 3)["valid"]["speaker"]) == ["c"], "the first follows the last"


def test_a_speaker_in_two_folds_is_refused():
    with pytest.raises(InputError, match="speaker b is in two folds"):
        blocks(corpus_of(["a", "b", "c", "b"], fold=[1, 2, 3, 1]), 3)


@pytest.mark.parametrize("fold", [[0, 1, 2], [1, 2, 2], [1, 2, 4]])
def test_folds_that_are_not_1_to_n_are_refused(fold):
    with pytest.raises(InputError, match="not 1 to 3"):
        blocks(corpus_of(["a", "b", "c"], fold=fold), 3)


@pytest.mark.parametrize("fold", [[1, 2, None], ["1", "2", "x"]])
def test_a_speaker_without_a_fold_is_named(fold):
    with pytest.raises(InputError, match="speaker c has no number as fold; fill it in"):
        blocks(corpus_of(["a", "b", "c"], fold=fold), 3)


def test_folds_may_be_text():
    assert blocks(corpus_of(["a", "b", "c"], fold=["2", "3", "1"]), 3) == {"a": 2, "b": 3, "c": 1}


@pytest.mark.parametrize("fold", [-1, 0, 11])
def test_folds_that_do_not_exist_are_refused(fold):
    with pytest.raises(InputError, match=f"no fold {fold}; give a number from 1 to 10"):
        fold_parts(published("ravdess"), fold)


@pytest.mark.parametrize("n_folds", [-1, 0, 1, 2])
def test_fewer_than_three_blocks_are_refused(n_folds):
    with pytest.raises(InputError, match="--n_folds"):
        blocks(published("ravdess"), n_folds)


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_speakers_for_any_division_need_more_speakers(count):
    for n_folds in (3, 10):
        with pytest.raises(InputError, match="speaker") as error:
            blocks(corpus_of([f"s{number}" for number in range(count)] * 2), n_folds)
        assert "--n_folds" not in str(error.value), "no number of folds would help"
        assert "3 speakers" in str(error.value)


def test_too_few_speakers_for_so_many_folds_need_fewer_folds():
    corpus = corpus_of(["a", "b", "c", "d"])
    with pytest.raises(InputError, match=r"4 speaker.*--n_folds 4"):
        blocks(corpus, 10)
    assert blocks(corpus, 4) == {"a": 1, "b": 2, "c": 3, "d": 4}


def test_written_folds_say_block_and_checksum(tmp_path):
    corpus = published("ravdess")
    file = tmp_path / "new" / "folds.csv"
    checksum = write_folds(corpus, file)
    content = file.read_bytes()
    assert checksum == hashlib.sha256(content).hexdigest()
    assert (tmp_path / "new" / "folds.csv.sha256").read_text() == f"{checksum}  folds.csv\n"

    rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    assert list(rows[0]) == ["id", "speaker", "emotion", "block"]
    assert [row["id"] for row in rows] == ravdess.file_stems()
    for fold in (1, 10):
        of_block = [row["id"] for row in rows if int(row["block"]) == fold]
        assert of_block == fold_parts(corpus, fold)["test"]["id"].tolist()

    moved = corpus_of(corpus.table["speaker"].tolist(), id=corpus.table["id"], path="elsewhere")
    assert write_folds(moved, tmp_path / "again.csv") == checksum, "whatever the folder of the corpus"
    assert (tmp_path / "again.csv").read_bytes() == content
    assert write_folds(corpus, tmp_path / "five.csv", 5) != checksum


def test_what_is_trained_on_is_read_from_written_folds(tmp_path):
    corpus = corpus_of(list("abcde"), id=["NA", "007", "null", "1e5", "x"])
    write_folds(corpus, tmp_path / "folds.csv", 5)
    for fold in range(1, 6):
        assert training_ids(tmp_path / "folds.csv", fold) == set(fold_parts(corpus, fold, 5)["train"]["id"])


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum")
def test_sha256sum_reads_the_checksum(tmp_path):
    write_folds(corpus_of(["a", "b", "c"]), tmp_path / "folds.csv", 3)
    subprocess.run(["sha256sum", "--check", "--strict", "folds.csv.sha256"], cwd=tmp_path, check=True)
    (tmp_path / "folds.csv").write_text("changed")
    assert subprocess.run(["sha256sum", "--check", "folds.csv.sha256"], cwd=tmp_path, check=False).returncode == 1


def emotional():
    """RAVDESS without files, with its emotions."""
    stems = ravdess.file_stems()
    emotions = [EMOTIONS[int(stem.split("-")[2]) - 1] for stem in stems]
    return corpus_of([stem.split("-")[-1] for stem in stems], id=stems, emotion=emotions)


def test_by_utterance_each_emotion_is_divided_and_all_speakers_are_in_each_part():
    corpus = emotional()
    parts = [fold_parts(corpus, fold, split="utterance") for fold in range(1, 11)]
    tested = pd.concat([one["test"] for one in parts])
    assert sorted(tested["id"]) == sorted(corpus.table["id"])
    for one in parts:
        names = [set(one[name]["id"]) for name in ("train", "valid", "test")]
        assert sum(map(len, names)) == len(set().union(*names)) == 1440
        # A tenth of each emotion: 96 neutral utterances, 192 of each other one.
        counts = Counter(one["test"]["emotion"])
        assert counts["neutral"] in (9, 10) and {counts[name] for name in set(counts) - {"neutral"}} <= {19, 20}
        assert len(set(one["train"]["speaker"]) & set(one["test"]["speaker"])) > 20
    again = fold_parts(emotional(), 1, split="utterance")["test"]
    assert list(again["id"]) == list(parts[0]["test"]["id"])


def test_a_split_that_cannot_be_is_refused():
    with pytest.raises(InputError, match="--split actor: give speaker or utterance"):
        fold_parts(emotional(), 1, split="actor")
    with pytest.raises(InputError, match="--n_folds 97: give 3 to 96, the number of utterances of neutral"):
        fold_parts(emotional(), 1, 97, split="utterance")
