"""A corpus of one's own: what a table may look like, and what is wrong with others."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from ser_plugins import load
from ser_plugins.corpora import Table
from ser_plugins.corpora.corpus import RESERVED
from ser_plugins.corpora.folds import blocks, fold_parts
from ser_plugins.errors import InputError
from ser_plugins.inference import embed, predict, timeline

NAMES = ["c", "a", "b"]


@pytest.fixture
def folder(tmp_path):
    """Three sounds below ``clips``."""
    (tmp_path / "clips").mkdir()
    for number, name in enumerate(NAMES):
        sf.write(tmp_path / "clips" / f"{name}.wav", np.full(3200 + number, 0.1), 16000)
    return tmp_path


def rows(**columns):
    plain = {"path": [f"clips/{name}.wav" for name in NAMES], "emotion": ["sad", "happy", "sad"]}
    return pd.DataFrame({**plain, "speaker": ["2", "1", "2"], **columns})


def save(folder, table, kind="csv"):
    file = folder / f"table.{kind}"
    table.to_csv(file, index=False) if kind == "csv" else table.to_parquet(file)
    return str(file)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_is_read_in_its_order(folder, kind, monkeypatch):
    file = save(folder, rows(), kind)
    monkeypatch.chdir(folder.parent)  # paths start from the table's folder, not from here
    corpus = Table(file).read()
    assert corpus.name == "table"
    assert corpus.labels == ("happy", "sad")
    assert corpus.table["id"].tolist() == NAMES
    assert corpus.table["emotion"].tolist() == ["sad", "happy", "sad"]
    assert corpus.speakers == ["2", "1"]
    assert [Path(path) for path in corpus.table["path"]] == [folder / "clips" / f"{name}.wav" for name in NAMES]
    assert corpus.faults.empty


def test_its_licence_is_the_given_one(folder):
    file = save(folder, rows())
    assert Table(file).read().licence == "unknown" and Table(file, licence="CC0").read().licence == "CC0"


def test_csv_and_parquet_are_the_same_corpus(folder):
    table = rows(id=["1", "2", "3"], fold=[1, 2, 1])
    csv, parquet = (Table(save(folder, table, kind)).read() for kind in ("csv", "parquet"))
    assert csv.checksum() == parquet.checksum()
    assert blocks_of(csv) == blocks_of(parquet)


def blocks_of(corpus):
    return corpus.table[["speaker", "fold"]].drop_duplicates().to_numpy().tolist()


def test_ids_and_speakers_such_as_007_stay_text(folder):
    table = Table(save(folder, rows(id=["007", "7", "1e3"], speaker=["01", "1", "01"]))).read().table
    assert table["id"].tolist() == ["007", "7", "1e3"]
    assert table["speaker"].tolist() == ["01", "1", "01"]


def test_speakers_and_emotions_such_as_na_are_no_empty_cells(folder):
    table = Table(save(folder, rows(speaker=["NA", "NB", "NA"], emotion=["none", "nan", "null"]))).read().table
    assert table["speaker"].tolist() == ["NA", "NB", "NA"]
    assert table["emotion"].tolist() == ["none", "nan", "null"]


def test_numbers_in_parquet_become_text(folder):
    table = Table(save(folder, rows(id=[7, 8, 9], speaker=[1, 2, 1]), "parquet")).read().table
    assert table["id"].tolist() == ["7", "8", "9"]
    assert table["speaker"].tolist() == ["1", "2", "1"]


def test_absolute_paths_stay(folder):
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    file = save(elsewhere, rows(path=[str(folder / "clips" / f"{name}.wav") for name in NAMES]))
    assert Table(file).read().table["path"].tolist() == [str(folder / "clips" / f"{name}.wav") for name in NAMES]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_folds_of_its_own_are_kept(folder, kind):
    speakers = ["x", "y", "z"]
    corpus = Table(save(folder, rows(speaker=speakers, fold=[3, 1, 2]), kind)).read()
    assert blocks(corpus, 3) == {"x": 3, "y": 1, "z": 2}


def test_given_labels_fix_the_order_and_refuse_others(folder):
    file = save(folder, rows())
    assert Table(file, labels=["sad", "angry", "happy"]).read().labels == ("sad", "angry", "happy")
    with pytest.raises(InputError, match="unknown emotion 'happy'; known: sad, angry"):
        Table(file, labels=["sad", "angry"]).read()


def test_labels_in_one_text_are_refused(folder):
    with pytest.raises(InputError, match=r"--emotions sad,happy: give a list, as \[happy, sad\]"):
        Table(save(folder, rows()), labels="sad,happy").read()


@pytest.mark.parametrize(
    "label", ["predicted", "a => b", "path", "error", "warning", "seconds", "probability", "start"]
)
def test_labels_that_results_have_no_place_for_are_refused(folder, label):
    with pytest.raises(InputError, match=f"emotion '{label}' has a name that results need; rename it"):
        Table(save(folder, rows(emotion=["sad", label, "sad"]))).read()


def test_no_table_has_a_column_that_is_not_reserved(tmp_path, write_model):
    model = load(write_model(tmp_path / "model", "s3", labels=["ann", "bob"], polarity={}), device="cpu")
    sf.write(tmp_path / "clip.wav", np.random.default_rng(0).normal(0, 0.1, 16000), 16000)
    tables = [predict(model, tmp_path / "clip.wav"), embed(model, tmp_path / "clip.wav")]
    columns = {column for table in [*tables, timeline(model, tmp_path / "clip.wav")] for column in table}
    assert columns - {"ann", "bob"} <= RESERVED


def test_other_columns_are_left_out(folder):
    """Some would mean something to a training: voice, prepared, size."""
    table = Table(save(folder, rows(voice=["low", "high", "low"], size=[1, 2, 3], fold=[1, 2, 1]))).read().table
    assert sorted(table.columns) == ["emotion", "fault", "fold", "id", "path", "speaker"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("gone", [["path"], ["emotion"], ["speaker"], ["emotion", "speaker"]])
def test_missing_columns_are_named(folder, gone, kind):
    with pytest.raises(InputError, match=rf"table\.{kind} lacks the column\(s\) {', '.join(gone)};"):
        Table(save(folder, rows().drop(columns=gone), kind)).read()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("column", ["path", "emotion", "speaker", "id"])
def test_empty_cells_are_refused(folder, column, kind):
    table = rows(id=["1", "2", "3"])
    table.loc[1, column] = None
    with pytest.raises(InputError, match=rf"table\.{kind}: row 2 after the header lacks {column}"):
        Table(save(folder, table, kind)).read()


def test_ids_must_be_unique(folder):
    with pytest.raises(InputError, match="id 'x' stands twice"):
        Table(save(folder, rows(id=["x", "y", "x"]))).read()


def test_files_of_one_name_need_ids(folder):
    (folder / "other").mkdir()
    sf.write(folder / "other" / "a.wav", np.full(3200, 0.1), 16000)
    paths = ["clips/a.wav", "other/a.wav", "clips/b.wav"]
    with pytest.raises(InputError, match="two files are named a; add a column id"):
        Table(save(folder, rows(path=paths))).read()
    assert len(Table(save(folder, rows(path=paths, id=["1", "2", "3"]))).read().table) == 3


def test_channels_that_cancel_each_other_are_a_fault(folder):
    samples = np.sin(np.arange(3200))
    sf.write(folder / "clips" / "b.wav", np.stack([samples, -samples], 1), 16000)
    assert Table(save(folder, rows())).read().faults["fault"].tolist() == ["silent; kept"]


def test_a_missing_or_damaged_sound_is_named(folder):
    file = save(folder, rows())
    (folder / "clips" / "a.wav").write_text("text")
    with pytest.raises(InputError, match=r"1 unreadable files; .*clips/a\.wav"):
        Table(file).read()
    (folder / "clips" / "a.wav").unlink()
    with pytest.raises(InputError, match=r"1 unreadable files; .*clips/a\.wav is missing"):
        Table(file).read()


def test_silent_sounds_are_kept_or_left_out(folder):
    file = save(folder, rows())
    sf.write(folder / "clips" / "a.wav", np.zeros(3200), 16000)
    kept, left = Table(file).read(), Table(file, exclude_faults=True).read()
    assert kept.table["fault"].tolist() == ["", "silent", ""]
    assert left.table["id"].tolist() == ["c", "b"]
    assert kept.faults.to_numpy().tolist() == [[str(folder / "clips" / "a.wav"), "silent; kept"]]
    assert left.faults["fault"].tolist() == ["silent; left out"]


def test_no_file_is_an_error():
    with pytest.raises(InputError, match="--data_folder"):
        Table().read()


@pytest.mark.parametrize("name", ["no.csv", "no.parquet"])
def test_a_file_that_is_not_there_is_named(tmp_path, name):
    with pytest.raises(InputError, match=f"there is no table .*{name}; check --data_folder"):
        Table(str(tmp_path / name)).read()


@pytest.mark.parametrize(
    "name, content",
    [
        ("wave.csv", b"RIFF\xa4\x9c\x00\x00WAVEfmt \xff\xfe"),
        ("empty.csv", b""),
        ("ragged.csv", b'path,emotion,speaker\n"a,b,c\nd,e\n'),
        ("text.parquet", b"path,emotion,speaker\n"),
    ],
)
def test_a_file_that_is_no_table_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} is (not a CSV or Parquet table|no text)") as error:
        Table(str(tmp_path / name)).read()
    assert "\n" not in str(error.value)


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(InputError, match="is not a CSV or Parquet table"):
        Table(str(tmp_path)).read()


def test_a_table_without_rows_is_refused(tmp_path):
    (tmp_path / "header.csv").write_text("path,emotion,speaker\n")
    with pytest.raises(InputError, match="no utterance found"):
        Table(str(tmp_path / "header.csv")).read()


@pytest.mark.parametrize(
    ("speakers", "emotions"),
    [
        (["a ", "a", "b"], ["sad", "happy", "sad"]),
        (["a\u00a0", " a", "b"], ["sad", " happy ", "sad"]),
        (["e\u0301", "\u00e9", "b"], ["tre\u0301s  gai", "tr\u00e9s gai", "sad"]),
        (["a\u200b", "\ufeffa", "b"], ["sad", "happy", "sad"]),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_names_that_differ_by_spaces_or_unicode_form_are_one(folder, caplog, speakers, emotions, kind):
    corpus = Table(save(folder, rows(speaker=speakers, emotion=emotions), kind)).read()
    assert len(corpus.speakers) == 2 and len(corpus.labels) == 2
    assert [line for line in caplog.messages if "speaker" in line and "written as" in line]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"speaker": ["Ann", "ann", "b"]}, "speaker 'Ann' and 'ann' differ by case alone; write them alike"),
        ({"emotion": ["sad", "happy", "SAD "]}, "emotion 'sad' and 'SAD' differ by case alone"),
        ({"emotion": ["sad", "happy", "\uff53ad"]}, "emotion 'sad' and '\uff53ad' differ by case alone"),
    ],
)
def test_names_that_differ_by_case_are_refused(folder, columns, said):
    with pytest.raises(InputError, match=re.escape(said)):
        Table(save(folder, rows(**columns))).read()


def test_cells_of_spaces_are_empty(folder):
    with pytest.raises(InputError, match="row 2 after the header lacks speaker"):
        Table(save(folder, rows(speaker=["1", "  ", "2"]))).read()


def test_one_emotion_alone_is_refused(folder):
    corpus = Table(save(folder, rows(emotion=["sad"] * 3, speaker=["1", "2", "3"]))).read()  # merged, it may be
    with pytest.raises(InputError, match="its only emotion is 'sad'; add utterances of another"):
        fold_parts(corpus, 1, 3)


@pytest.mark.parametrize("way", ["link", "copy", "path"])
def test_a_recording_of_two_speakers_is_refused_or_left_out(folder, way):
    again = folder / "clips" / "again.wav"
    if way == "link":
        again.symlink_to(folder / "clips" / "c.wav")
    elif way == "copy":
        shutil.copy(folder / "clips" / "c.wav", again)
    path = "clips/../clips/c.wav" if way == "path" else "clips/again.wav"
    table = pd.concat([rows(id=["1", "2", "3"]), rows(id=["4", "5", "6"], path=path, speaker="1").head(1)])
    with pytest.raises(InputError, match=r"c\.wav and .* are one recording of two speakers; correct them"):
        Table(save(folder, table)).read()
    corpus = Table(save(folder, table), exclude_faults=True).read()
    assert corpus.table["id"].tolist() == ["2", "3"]
    assert corpus.faults["fault"].str.contains("stands 2 times: the same recording as .*; left out").all()


def test_a_recording_that_one_speaker_has_twice_is_a_fault(folder):
    shutil.copy(folder / "clips" / "c.wav", folder / "clips" / "b.wav")
    corpus = Table(save(folder, rows())).read()
    first, last = corpus.faults.to_dict("records")
    assert first["fault"].endswith("b.wav; kept") and last["fault"].endswith("c.wav; kept")
    assert len(corpus.table) == 3 and corpus.table["fault"].str.startswith("stands 2 times").tolist() == [1, 0, 1]


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
def test_other_separators_are_named(folder, separator, name):
    rows().to_csv(folder / "table.csv", index=False, sep=separator)
    with pytest.raises(InputError, match=rf"table\.csv is separated by {name}; separate it by commas$"):
        Table(str(folder / "table.csv")).read()


def test_empty_rows_of_a_spreadsheet_are_left_out(folder):
    (folder / "table.csv").write_text(rows().to_csv(index=False) + ",,\n,,\n")
    assert len(Table(str(folder / "table.csv")).read().table) == len(rows())


def test_a_byte_order_mark_and_spaces_behind_commas_are_taken(folder):
    text = rows().to_csv(index=False).replace(",", ", ")
    (folder / "table.csv").write_text(text, encoding="utf-8-sig")
    assert Table(str(folder / "table.csv")).read().labels == ("happy", "sad")


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-16", "is UTF-16, not UTF-8; save it as UTF-8"),
        ("utf-16-le", "is UTF-16 without a byte order mark"),
        ("utf-32", "is UTF-32, not UTF-8"),
        ("latin-1", "is not UTF-8: byte 0xe9 in line 3; save it as UTF-8"),
    ],
)
def test_other_encodings_are_named(folder, encoding, said):
    text = rows(speaker=["1", "Ren\u00e9", "1"]).to_csv(index=False)
    (folder / "table.csv").write_bytes(text.encode(encoding))
    with pytest.raises(InputError, match=rf"table\.csv {said}"):
        Table(str(folder / "table.csv")).read()


@pytest.mark.skipif("SER_PLUGINS_CASES" not in os.environ, reason="SER_PLUGINS_CASES names no folder")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dup_with_id.csv", r"a0\.wav and .*a0\.wav are one recording of two speakers"),
        ("speaker_space.csv", None),
        ("half_spaces.csv", None),
        ("label_error.csv", "emotion 'error' has a name that results need; rename it"),
        ("label_probability.csv", "emotion 'probability' has a name that results need; rename it"),
    ],
)
def test_cases(name, said):
    table = Table(str(Path(os.environ["SER_PLUGINS_CASES"]) / "tables" / name))
    if said:
        with pytest.raises(InputError, match=said):
            table.read()
    else:
        corpus = table.read()
        assert corpus.speakers == ["a", "b", "c", "d"] and corpus.labels == ("happy", "sad")
