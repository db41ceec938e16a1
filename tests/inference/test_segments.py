"""Segments against plain loops, conversations against pieces that are cut out, and files read back by others."""

import numpy as np
import pandas as pd
import pytest
import soundfile

from ser_plugins import load
from ser_plugins.commands import main
from ser_plugins.errors import InputError
from ser_plugins.inference import (
    conversation,
    predict,
    read_turns,
    segments,
    speaker_statistics,
    timeline,
    write_segments,
)
from ser_plugins.inference.segmentation import check_format

LABELS = ["neutral", "happy", "sad"]
RATE = 16000


def windows(scores, window=1.0, hop=1.0, **columns):
    """A timeline of two emotions: probabilities of happy, None for silence."""
    scores = np.array([np.nan if one is None else one for one in scores])
    start = hop * np.arange(len(scores))
    return pd.DataFrame(
        {"path": "talk.wav", **columns, "start": start, "end": start + window, "happy": scores, "sad": 1 - scores}
    )


def found(frame, **options):
    rows = segments(frame, **options)
    return list(zip(rows["start"], rows["end"], rows["emotion"], strict=True))


def test_windows_of_one_emotion_are_one_segment_and_silence_is_none():
    frame = windows([0.9, 0.8, None, None, 0.2, 0.3, 0.1])
    rows = segments(frame)
    assert rows[["start", "end", "emotion"]].to_numpy().tolist() == [[0, 2, "happy"], [4, 7, "sad"]]
    assert rows["probability"].tolist() == pytest.approx([0.85, 0.8])


def test_a_segment_continues_until_another_emotion_is_more_probable_by_the_margin():
    frame = windows([0.7, 0.7, 0.48, 0.48, 0.7, 0.3, 0.3])
    assert found(frame, min_seconds=0) == [(0, 5, "happy"), (5, 7, "sad")]
    assert found(frame, min_seconds=0, margin=0) == [(0, 2, "happy"), (2, 4, "sad"), (4, 5, "happy"), (5, 7, "sad")]


def test_a_short_segment_joins_the_neighbour_that_is_more_probable_in_it():
    three = pd.DataFrame({"path": "a", "start": [0.0, 2, 3], "end": [2.0, 3, 6]})
    three = three.assign(neutral=[0.9, 0.1, 0.1], happy=[0.05, 0.5, 0.1], sad=[0.05, 0.4, 0.8])
    assert found(three, min_seconds=2) == [(0, 2, "neutral"), (2, 6, "sad")]
    assert found(three, min_seconds=1) == [(0, 2, "neutral"), (2, 3, "happy"), (3, 6, "sad")]
    assert found(windows([None, 0.9, None]), min_seconds=2) == [(1, 2, "happy")]  # silence on both sides


def test_overlapping_windows_meet_half_way_and_turns_do_not_join():
    frame = windows([0.9, 0.9, 0.1, 0.1], window=3.0)
    assert found(frame, min_seconds=0) == [(0, 3, "happy"), (3, 6, "sad")]
    frame = windows([0.9, 0.9, 0.9, 0.9], turn=[0, 0, 1, 1], speaker=["ann", "ann", "bob", "bob"])
    assert segments(frame)["speaker"].tolist() == ["ann", "bob"]


def test_random_timelines_keep_their_speech():
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores = [None if rng.random() < 0.2 else rng.random() for _ in range(20)]
        rows = segments(windows(scores), min_seconds=3)
        covered = [
            any(s <= i and i + 1 <= e for s, e in zip(rows["start"], rows["end"], strict=True)) for i in range(20)
        ]
        assert covered == [one is not None for one in scores]
        assert (rows["start"].iloc[1:].to_numpy() >= rows["end"].iloc[:-1].to_numpy()).all()
        for row in rows.to_dict("records"):  # a short one has silence on both sides
            beside = [i for i in (row["start"] - 1, row["end"]) if 0 <= i < 20]
            assert row["end"] - row["start"] >= 3 or all(scores[int(i)] is None for i in beside)


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    """A recording of 12 s, and who speaks in it: a pause at 7 s, and the last turn is longer than the recording."""
    folder = tmp_path_factory.mktemp("talk")
    rng = np.random.default_rng(1)
    samples = (rng.normal(0, 0.1, 12 * RATE) * np.repeat([1, 0.3, 2, 0.1], 3 * RATE)).astype(np.float32)
    soundfile.write(folder / "talk.wav", samples, RATE, subtype="FLOAT")
    turns = [("ann", 0.5, 3.0), ("bob", 3.0, 7.0), ("ann", 8.0, 9.5), ("bob", 9.0, 14.0)]
    (folder / "talk.csv").write_text("".join(["start,end,speaker\n", *(f"{s},{e},{who}\n" for who, s, e in turns)]))
    rttm = "".join(f"SPEAKER talk 1 {s} {e - s} <NA> <NA> {who} <NA> <NA>\n" for who, s, e in turns)
    (folder / "talk.rttm").write_text(f"SPKR-INFO talk 1 <NA> <NA> <NA> unknown ann <NA> <NA>\n{rttm}")
    return folder, samples, turns


def test_turns_are_the_same_as_rttm_and_as_a_table(talk):
    folder, _, turns = talk
    for suffix in ("csv", "rttm"):
        read = read_turns(folder / f"talk.{suffix}")
        assert list(read[["speaker", "start", "end"]].itertuples(index=False, name=None)) == turns


def test_each_speaker_is_normalised_by_its_own_turns(talk, tmp_path, write_model):
    folder, samples, turns = talk
    model = load(write_model(tmp_path / "s8", "s8"), device="cpu")
    frame = conversation(model, folder / "talk.wav", read_turns(folder / "talk.rttm"), window=2, hop=1)
    assert frame["start"].is_monotonic_increasing and set(frame["speaker"]) == {"ann", "bob"}
    assert [tuple(row) for row in frame[["turn", "start", "end"]].to_numpy()][:3] == [
        (0, 0.5, 2.5),
        (0, 1.5, 3),
        (1, 3, 5),
    ]
    assert frame["end"].max() == 12

    def piece(name, start, end):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, samples[round(start * RATE) : round(min(end, 12) * RATE)], RATE, subtype="FLOAT")
        return path

    for who in ("ann", "bob"):
        own = [piece(f"{who}/{i}.wav", s, e) for i, (name, s, e) in enumerate(turns) if name == who]
        speaker = speaker_statistics(model, own)
        for row in frame[frame["speaker"] == who].to_dict("records"):
            alone = predict(model, piece("one.wav", row["start"], row["end"]), speaker=speaker).iloc[0]
            np.testing.assert_allclose([row[name] for name in LABELS], alone[LABELS].astype(float), atol=1e-5)
    other = timeline(model, folder / "talk.wav", 2, 1)  # by no speaker
    assert abs(other[LABELS].iloc[3] - frame[LABELS].iloc[2]).max() > 1e-3


@pytest.fixture
def call(model_folder, talk):
    def call(*words, command="timeline"):
        words = [*map(str, words), "--model", str(model_folder), "--device", "cpu"]
        main([command, str(talk[0] / "talk.wav"), "--segments", "--hop", "0.5", "--window", "1", *words])

    return call


def read_textgrid(path):
    """Speakers and their segments, as praatIO reads them."""
    textgrid = pytest.importorskip("praatio.textgrid")
    grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=False)
    assert (grid.minTimestamp, grid.maxTimestamp) == (0, 12)
    return [(name, *one) for name in grid.tierNames for one in grid.getTier(name).entries]


def test_every_format_holds_the_segments_of_the_table(call, talk, tmp_path, capsys):
    for suffix in ("csv", "parquet", "rttm", "txt", "TextGrid"):
        call("--turns", talk[0] / "talk.rttm", "--output", tmp_path / f"out.{suffix}")
    assert capsys.readouterr().out.splitlines()[2] == str(tmp_path / "out.rttm")
    table = pd.read_csv(tmp_path / "out.csv")
    assert list(table) == ["path", "speaker", "start", "end", "emotion", "probability", "error"]
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out.parquet")[list(table)[:-1]], table[list(table)[:-1]])
    rttm = pd.read_csv(tmp_path / "out.rttm", sep=" ", header=None, keep_default_na=False)
    assert rttm[[0, 1, 2]].drop_duplicates().to_numpy().tolist() == [["SPEAKER", "talk", 1]]
    assert rttm[7].tolist() == table["speaker"].tolist() and rttm[6].tolist() == table["emotion"].tolist()
    for read, known in ((rttm[3], table["start"]), (rttm[3] + rttm[4], table["end"]), (rttm[8], table["probability"])):
        np.testing.assert_allclose(read, known, atol=2e-3)
    again = read_turns(tmp_path / "out.rttm")
    assert again["speaker"].tolist() == table["speaker"].tolist()
    labels = pd.read_csv(tmp_path / "out.txt", sep="\t", header=None)
    np.testing.assert_allclose(labels[[0, 1]], table[["start", "end"]], atol=1e-5)
    assert labels[2][0] == f"{table['speaker'][0]}: {table['emotion'][0]} {table['probability'][0]:.2f}"
    found = read_textgrid(tmp_path / "out.TextGrid")
    expected = table.sort_values(["speaker", "start"])
    assert [(name, label) for name, _, _, label in found] == list(
        zip(expected["speaker"], expected["emotion"], strict=True)
    )
    np.testing.assert_allclose([one[1] for one in found], expected["start"], atol=1e-5)


def test_without_turns_the_emotion_is_the_name(call, tmp_path, capsys):
    call("--output", tmp_path / "out.rttm", "--timeline", command="predict")
    call("--output", tmp_path / "out.TextGrid")
    capsys.readouterr()
    call()
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert printed[0] == ["path", "start", "end", "emotion", "probability"]
    rttm = pd.read_csv(tmp_path / "out.rttm", sep=" ", header=None)
    assert rttm[7].tolist() == [line[3] for line in printed[1:]]
    assert [one[3] for one in read_textgrid(tmp_path / "out.TextGrid")] == rttm[7].tolist()


def test_names_of_any_kind_are_written(tmp_path):
    frame = pd.DataFrame({"path": ["a talk.wav"], "speaker": ['Ann "A" Lee'], "start": [0.5], "end": [2.0]})
    frame = frame.assign(emotion="sad", probability=0.5)
    write_segments(frame, tmp_path / "a.rttm")
    assert read_turns(tmp_path / "a.rttm").to_numpy().tolist() == [["a_talk", 0.5, 2.0, 'Ann_"A"_Lee']]
    write_segments(frame, tmp_path / "a.TextGrid", 12)
    assert read_textgrid(tmp_path / "a.TextGrid") == [('Ann "A" Lee', 0.5, 2.0, "sad")]
    write_segments(frame.iloc[:0], tmp_path / "none.txt")
    assert (tmp_path / "none.txt").read_text() == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("start;end;speaker\n0;1;ann\n", "is separated by semicolons"),
        ("start,end\n0,1\n", "lacks the column.s. speaker; it has start, end"),
        ("start,end,speaker\n2,1,ann\n", "turn 1: 2.0 to 1.0 s of 'ann'; give a speaker"),
        ("start,end,speaker\n0,1,\n", "turn 1: .* of ''; give a speaker"),
        ("start,end,speaker\nsoon,1,ann\n", "is not a file of turns .*soon.*; give an RTTM"),
        ("start,end,speaker\n", "has no turn"),
        ("start,end,speaker,file\n0,1,ann,other\n", "there are turns of other, and none of talk; rename"),
        ("start,end,speaker\n50,51,ann\n", "none of 1 files could be used; .*talk.wav ends before its first turn"),
    ],
)
def test_turns_that_cannot_be_used_are_one_line(call, tmp_path, text, message):
    (tmp_path / "turns.csv").write_text(text)
    with pytest.raises(SystemExit, match=rf"^error: .*{message}"):
        call("--turns", tmp_path / "turns.csv")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["timeline", "--turns", "x.rttm"], "give --segments"),
        (["predict", "--segments"], "use ser-plugins timeline --segments"),
        (["timeline", "--segments", "--turns", "x.rttm", "--speaker", "y"], "leave --speaker out"),
        (["timeline", "--segments", "--turns", "x.rttm"], "x.rttm cannot be read"),
        (["timeline", "--segments", "--output", "out.txt"], "out.txt holds one recording"),
        (["timeline", "--segments", "--output", "out.elan"], "not a known kind of table"),
        (["timeline", "--segments", "--min_seconds", "-1"], "min_seconds -1.0"),
    ],
)
def test_wrong_options_are_one_line(model_folder, clips, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=rf"^error: .*{message}"):
        main([words[0], str(clips), *words[1:], "--model", str(model_folder)])


def test_wrong_segments_are_refused(tmp_path):
    with pytest.raises(InputError, match="margin"):
        segments(windows([0.5]), margin=2)
    with pytest.raises(InputError, match="not a known kind of segments"):
        write_segments(segments(windows([0.5])), tmp_path / "a.xml")


def test_recordings_of_one_name_are_told_apart_or_refused(tmp_path):
    check_format(tmp_path / "all.rttm", ["one/talk.wav", "two/call.wav"])
    with pytest.raises(InputError, match=r"all\.rttm would name several recordings talk; write a table"):
        check_format(tmp_path / "all.rttm", ["one/talk.wav", "two/talk.wav"])
    with pytest.raises(InputError, match=r"all\.txt holds one recording"):
        check_format(tmp_path / "all.txt", ["one/talk.wav", "two/call.wav"])
