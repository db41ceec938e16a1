"""RAVDESS and CREMA-D from folders of tiny sounds: the published naming and counts, and whatever may be wrong."""

import os
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from ser_plugins.corpora import CremaD, Ravdess, cremad, ravdess
from ser_plugins.errors import InputError

RAVDESS_PAIR = ["03-01-03-01-02-01-07", "03-01-03-01-02-02-07"]  # one recording under two names
CREMAD_PAIRS = [
    "1006_TIE_HAP_XX",
    "1006_TIE_NEU_XX",
    "1013_WSI_DIS_XX",
    "1013_WSI_SAD_XX",
    "1017_IWW_ANG_XX",
    "1017_IWW_FEA_XX",
]
CREMAD_SILENT = "1076_MTI_SAD_XX"


def sound(path, samples=None, **options):
    """Write a sound file, 0.2 s of noise where no samples are given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # a hard link of all others
    noise = np.random.default_rng(0).normal(scale=0.1, size=3200)
    sf.write(path, noise if samples is None else samples, 16000, **options)


def lay_out(folder, places):
    """Put one small sound at all places (relative paths), in an order that says nothing."""
    places = list(places)
    random.Random(0).shuffle(places)
    folder.mkdir(parents=True, exist_ok=True)
    source = folder.parent / f"{folder.name}-source.wav"
    sound(source)
    for parent in {Path(place).parent for place in places}:
        (folder / parent).mkdir(parents=True, exist_ok=True)
    for place in places:
        os.link(source, folder / place)
    return folder


@pytest.fixture
def actors(tmp_path):
    """The 24 folders of RAVDESS."""
    return lay_out(tmp_path / "ravdess", (f"Actor_{stem[-2:]}/{stem}.wav" for stem in ravdess.file_stems()))


@pytest.fixture(scope="module")
def audio_wav(tmp_path_factory):
    """CREMA-D's folder with nothing wrong in it; tests leave it as it is."""
    return lay_out(tmp_path_factory.mktemp("cremad") / "AudioWAV", (f"{stem}.wav" for stem in cremad.file_stems()))


def faults(corpus):
    return dict(zip(map(os.path.basename, corpus.faults["path"]), corpus.faults["fault"], strict=True))


def test_ravdess_has_the_published_counts(actors):
    corpus = Ravdess(str(actors)).read()
    table = corpus.table
    assert corpus.name == "ravdess" and not corpus.synthetic
    assert corpus.labels == ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
    assert len(table) == 1440
    assert Counter(table["emotion"]) == {label: 96 if label == "neutral" else 192 for label in corpus.labels}
    assert corpus.speakers == [f"{actor:02d}" for actor in range(1, 25)]
    assert set(Counter(table["speaker"]).values()) == {60}
    assert Counter(name[9:11] for name in table["id"]) == {"01": 768, "02": 672}, "normal and strong intensity"
    assert [Path(path).stem for path in table["path"]] == table["id"].tolist()


@pytest.mark.parametrize(
    "name, emotion, actor",
    [
        ("03-01-01-01-01-01-01", "neutral", "01"),
        ("03-01-02-02-01-01-03", "calm", "03"),
        ("03-01-03-01-02-02-24", "happy", "24"),
        ("03-01-04-02-02-01-11", "sad", "11"),
        ("03-01-05-02-02-02-20", "angry", "20"),
        ("03-01-06-01-02-01-12", "fearful", "12"),
        ("03-01-07-01-01-02-08", "disgust", "08"),
        ("03-01-08-02-01-02-17", "surprised", "17"),
    ],
)
def test_ravdess_names_say_emotion_and_actor(tmp_path, name, emotion, actor):
    sound(tmp_path / f"{name}.wav")
    (row,) = Ravdess(str(tmp_path), allow_incomplete=True).read().table.itertuples()
    assert (row.id, row.emotion, row.speaker) == (name, emotion, actor)


def test_cremad_has_the_published_counts(audio_wav):
    corpus = CremaD(str(audio_wav)).read()
    table = corpus.table
    assert corpus.name == "cremad" and not corpus.synthetic
    assert len(table) == 7442
    assert Counter(table["emotion"]) == {
        **dict.fromkeys(("angry", "disgust", "fearful", "happy", "sad"), 1271),
        "neutral": 1087,
    }
    assert Counter(name[9:12] for name in table["id"]) == {
        **dict.fromkeys(("ANG", "DIS", "FEA", "HAP", "SAD"), 1271),
        "NEU": 1087,
    }
    assert Counter(name[13:] for name in table["id"]) == {"LO": 455, "MD": 455, "HI": 455, "XX": 6077}
    assert corpus.speakers == [str(actor) for actor in range(1001, 1092)]
    assert table["id"].tolist() == sorted(table["id"])
    # Names that are not what they say stay, but are listed.
    assert sorted(Path(path).stem for path in corpus.faults["path"]) == sorted([*CREMAD_PAIRS, CREMAD_SILENT])
    assert corpus.faults["fault"].str.endswith("kept").all()


@pytest.mark.parametrize(
    "name, emotion, actor",
    [
        ("1001_DFA_ANG_XX", "angry", "1001"),
        ("1034_IEO_FEA_HI", "fearful", "1034"),
        ("1040_ITH_SAD_XX", "sad", "1040"),
        ("1055_IEO_NEU_XX", "neutral", "1055"),
        ("1077_IEO_DIS_LO", "disgust", "1077"),
        ("1091_WSI_HAP_XX", "happy", "1091"),
    ],
)
def test_cremad_names_say_emotion_and_actor(tmp_path, name, emotion, actor):
    sound(tmp_path / f"{name}.wav")
    (row,) = CremaD(str(tmp_path), allow_incomplete=True).read().table.itertuples()
    assert (row.id, row.emotion, row.speaker) == (name, emotion, actor)


def test_cremads_former_name_of_a_file_is_known(tmp_path):
    sound(tmp_path / "1040_ITH_SAD_X.wav")
    corpus = CremaD(str(tmp_path), allow_incomplete=True).read()
    assert corpus.table["id"].tolist() == ["1040_ITH_SAD_XX"] and not corpus.faults["fault"].str.contains("extra").any()


def test_cremads_faults_can_be_left_out(audio_wav):
    corpus = CremaD(str(audio_wav), exclude_faults=True).read()
    assert set(cremad.file_stems()) - set(corpus.table["id"]) == {*CREMAD_PAIRS, CREMAD_SILENT}
    assert corpus.faults["fault"].str.endswith("left out").all()


def test_the_order_is_native_whatever_the_folders(tmp_path, actors, monkeypatch):
    def depth(stem):  # the last actors first, and each take of a name elsewhere
        return f"{'zyx'[int(stem[16:17]) % 3]}/{99 - int(stem[-2:])}/deep/er/{stem}.wav"

    other = lay_out(tmp_path / "other", map(depth, ravdess.file_stems()))
    sound(actors / "Actor_00" / "03-01-04-01-01-01-10.wav")  # the first copy by name, not the first met, counts
    plain = Ravdess(str(actors)).read()
    deep = Ravdess(str(other)).read()
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda *args, **options: reversed(list(walk(*args, **options))))
    backwards = Ravdess(str(actors)).read()

    assert plain.table["id"].tolist() == sorted(plain.table["id"], key=lambda name: (name[-2:], name))
    assert backwards.table.equals(plain.table) and backwards.faults.equals(plain.faults)
    assert deep.table["id"].tolist() == plain.table["id"].tolist()
    assert deep.checksum() == plain.checksum()


def test_upper_case_suffixes_and_linked_folders_count_and_hidden_files_do_not(tmp_path, actors):
    (actors / "Actor_03").rename(tmp_path / "elsewhere")
    (actors / "Actor_03").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    for path in (actors / "Actor_05").iterdir():
        path.rename(path.with_suffix(".WAV"))
    for path in list((actors / "Actor_06").iterdir()):
        (actors / "Actor_06" / f"._{path.name}").write_bytes(b"\x00\x05\x16\x07")  # left by macOS
    (actors / "README.txt").write_text("not a sound")
    corpus = Ravdess(str(actors)).read()
    assert len(corpus.table) == 1440
    assert sorted(faults(corpus)) == [f"{name}.wav" for name in RAVDESS_PAIR]


def test_a_folder_linked_into_itself_is_read_once(actors):
    (actors / "Actor_01" / "up").symlink_to(actors, target_is_directory=True)
    (actors / "Actor_02" / "up").symlink_to(actors, target_is_directory=True)
    corpus = Ravdess(str(actors)).read()
    assert len(corpus.table) == 1440
    assert not corpus.table["path"].str.contains("up").any()
    assert sorted(faults(corpus)) == [f"{name}.wav" for name in RAVDESS_PAIR]


def test_missing_files_stop_the_run_or_are_listed(actors):
    gone = ["03-01-02-01-01-01-02", "03-01-08-02-02-02-09", "03-01-01-01-01-01-24"]
    for name in gone:
        (actors / f"Actor_{name[-2:]}" / f"{name}.wav").unlink()
    with pytest.raises(InputError) as error:
        Ravdess(str(actors)).read()
    for said in ("3 of 1440", gone[0], str(actors), "--allow_incomplete"):
        assert said in str(error.value)
    corpus = Ravdess(str(actors), allow_incomplete=True).read()
    assert set(ravdess.file_stems()) - set(corpus.table["id"]) == set(gone)
    assert {name: faults(corpus)[f"{name}.wav"] for name in gone} == dict.fromkeys(gone, "missing")


def test_extra_files_and_second_copies_are_listed_and_never_used(actors):
    sound(actors / "Actor_01" / "03-01-01-02-01-01-01.wav")  # neutral has no strong intensity
    sound(actors / "Actor_25" / "03-01-01-01-01-01-25.wav")
    sound(actors / "Actor_01" / "03-02-02-01-01-01-01.wav")  # song
    sound(actors / "copy" / "Actor_01" / "03-01-02-01-01-01-01.wav")
    corpus = Ravdess(str(actors), exclude_faults=True).read()
    listed = corpus.faults[corpus.faults["fault"].str.startswith("extra")]
    assert sorted(os.path.relpath(path, actors) for path in listed["path"]) == [
        "Actor_01/03-01-01-02-01-01-01.wav",
        "Actor_01/03-02-02-01-01-01-01.wav",
        "Actor_25/03-01-01-01-01-01-25.wav",
        "copy/Actor_01/03-01-02-01-01-01-01.wav",
    ]
    assert not set(listed["path"]) & set(corpus.table["path"])
    assert set(ravdess.file_stems()) - set(corpus.table["id"]) == set(RAVDESS_PAIR)


def as_text(path):
    path.write_text("this is no sound")


def as_nothing(path):
    path.write_bytes(b"")


def as_no_samples(path):
    sound(path, np.zeros(0))


def as_nan(path):
    sound(path, np.array([0.1] * 3000 + [np.nan]), subtype="FLOAT")


def as_infinity(path):
    sound(path, np.array([0.1] * 3000 + [np.inf]), subtype="DOUBLE")


def as_pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 105644\n")


def as_broken_link(path):
    path.symlink_to(path.with_name("nowhere.wav"))


@pytest.mark.parametrize(
    "damage, said",
    [
        (as_text, "not readable as audio"),
        (as_nothing, "not readable as audio"),
        (as_no_samples, "no samples"),
        (as_nan, "NaN"),
        (as_infinity, "infinity"),
        (as_pointer, "git lfs pull"),
        (as_broken_link, "missing"),
    ],
)
def test_unreadable_files_stop_the_run_or_are_left_out(tmp_path, damage, said):
    names = ["03-01-01-01-01-01-01", "03-01-05-01-01-01-01", "03-01-02-01-01-01-02"]
    for name in names:
        sound(tmp_path / f"{name}.wav")
    paths = [tmp_path / f"{name}.wav" for name in names[1:]]
    for path in paths:
        path.unlink()
        damage(path)
    expected = find_only(names)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ravdess, "file_stems", expected)
        with pytest.raises(InputError) as error:
            Ravdess(str(tmp_path)).read()
        corpus = Ravdess(str(tmp_path), allow_incomplete=True).read()
    assert "2 unreadable files" in str(error.value)
    assert str(paths[0]) in str(error.value) and said in str(error.value)
    assert "\n" not in str(error.value)
    assert corpus.table["id"].tolist() == names[:1]
    assert sorted(corpus.faults["path"]) == sorted(map(str, paths))
    assert corpus.faults["fault"].str.contains(said).all()
    assert corpus.faults["fault"].str.endswith("left out").all()


def find_only(names):
    return lambda: names


def test_silent_and_misplaced_files_are_kept_or_left_out(actors):
    silent, misplaced = "03-01-04-01-01-01-10", "03-01-05-01-01-01-07"
    sound(actors / "Actor_10" / f"{silent}.wav", np.zeros(3200))
    (actors / "Actor_07" / f"{misplaced}.wav").rename(actors / "Actor_08" / f"{misplaced}.wav")
    kept = Ravdess(str(actors)).read()
    rows = kept.table.set_index("id")
    assert len(rows) == 1440
    assert rows.loc[silent, "fault"] == "silent"
    assert rows.loc[misplaced, "fault"].startswith("mislabelled")
    assert rows.loc[misplaced, "speaker"] == "07", "the name decides"
    assert sorted(rows.index[rows["fault"] != ""]) == sorted([silent, misplaced, *RAVDESS_PAIR])
    assert sorted(faults(kept)) == sorted(f"{name}.wav" for name in [silent, misplaced, *RAVDESS_PAIR])
    assert kept.faults["fault"].str.endswith("; kept").all()

    left = Ravdess(str(actors), exclude_faults=True).read()
    assert set(rows.index) - set(left.table["id"]) == {silent, misplaced, *RAVDESS_PAIR}
    assert left.faults["fault"].str.endswith("; left out").all()


@pytest.mark.parametrize("reader", [Ravdess, CremaD])
def test_a_folder_without_the_corpus_is_named(tmp_path, reader):
    with pytest.raises(InputError, match="needs --data_folder"):
        reader().read()
    with pytest.raises(InputError, match=r"there is no folder .*nowhere.*--data_folder"):
        reader(str(tmp_path / "nowhere")).read()
    sound(tmp_path / "song.wav")
    for allow_incomplete in (False, True):
        with pytest.raises(InputError, match=f"none of its .* files is below {tmp_path}.*--data_folder"):
            reader(str(tmp_path), allow_incomplete=allow_incomplete).read()
    with pytest.raises(InputError, match=r"there is no folder .*song\.wav"):
        reader(str(tmp_path / "song.wav")).read()


def test_ravdess_does_not_download_to_nowhere():
    with pytest.raises(InputError, match="--data_folder"):
        Ravdess(download=True).read()
