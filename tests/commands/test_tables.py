"""The commands predict, embed and timeline: their tables, errors, and resumption after being killed."""

import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import soundfile
import torch

from ser_plugins.commands import main
from ser_plugins.commands.recordings import figure_paths
from ser_plugins.inference import batches, embed, predict, table, utterances

LABELS = ["neutral", "happy", "sad"]
KINDS = {".csv": pd.read_csv, ".jsonl": lambda path: pd.read_json(path, lines=True), ".parquet": pd.read_parquet}


@pytest.fixture
def call(model_folder):
    def call(command, *words, model=model_folder):
        jobs = [] if command == "timeline" else ["--jobs", "0"]
        main([command, *map(str, words), "--model", str(model), "--device", "cpu", *jobs])

    return call


@pytest.fixture
def few(monkeypatch):
    """Chunks of four files."""
    monkeypatch.setattr(batches, "CHUNK_FILES", 4)


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def killed(function, *arguments):
    """Call in a process of its own, which must be killed."""

    def alone():
        torch.set_num_threads(1)
        function(*arguments)

    process = multiprocessing.get_context("fork").Process(target=alone)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("suffix", KINDS)
def test_tables_hold_what_the_functions_return(call, few, loaded_model, clips, tmp_path, suffix, capsys):
    output = tmp_path / "new" / f"table{suffix}"
    call("predict", clips, "--output", output)
    found, expected = KINDS[suffix](output), predict(loaded_model, clips)
    assert list(found.columns) == list(expected.columns)
    for name in ("path", "emotion", "error"):
        assert found[name].fillna("").tolist() == expected[name].fillna("").tolist()
    np.testing.assert_allclose(found[LABELS].astype(float), expected[LABELS], rtol=1e-5)
    call("embed", clips, "--output", output)
    found, expected = KINDS[suffix](output), embed(loaded_model, clips)["embedding"]
    if suffix == ".csv":
        given = found.filter(regex=r"embedding_\d+").to_numpy(np.float32)
    else:
        given = np.stack([np.full(12, np.nan) if one is None else one for one in found["embedding"]])
    np.testing.assert_allclose(given, np.stack([np.full(12, np.nan) if e is None else e for e in expected]), atol=1e-5)
    assert os.listdir(output.parent) == [output.name]
    assert capsys.readouterr().out.splitlines() == [str(output)] * 2


def test_parquet_is_typed(call, clips, tmp_path):
    import pyarrow.parquet as pq

    call("embed", clips, "--output", tmp_path / "table.parquet")
    assert str(pq.read_schema(tmp_path / "table.parquet").field("embedding").type) == "list<element: float>"


MOMENTS = ["before a chunk", "half a chunk", "after a chunk", "the columns", "the table"]


@pytest.mark.parametrize(
    ("suffix", "moment", "command"),
    [
        *((".parquet", moment, "embed") for moment in MOMENTS),
        *((suffix, "the table", "predict") for suffix in (".csv", ".jsonl")),
        (".csv", "half a chunk", "embed"),
    ],
)
def test_a_killed_run_is_resumed(call, few, clips, tmp_path, monkeypatch, suffix, moment, command):
    words = (clips, "--output", tmp_path / f"table{suffix}")
    call(command, *words)
    whole = (tmp_path / f"table{suffix}").read_bytes()
    (tmp_path / f"table{suffix}").unlink()

    write = table.PartialTable._write
    messages = []

    def spoiled(part, message):
        messages.append(message)
        last = {"the columns": 1, "the table": 99}.get(moment, 3)
        if len(messages) < last:
            return write(part, message)
        if moment in ("half a chunk", "the columns"):
            write(part, memoryview(message)[: message.size // 2])
        elif moment == "after a chunk":
            write(part, message)
        die()

    with monkeypatch.context() as patch:
        patch.setattr(table.PartialTable, "_write", spoiled)
        if moment == "the table":
            patch.setattr("ser_plugins.files.os.replace", die)
        killed(call, command, *words)
    assert not (tmp_path / f"table{suffix}").exists()

    read = []
    one = utterances.read_groups
    monkeypatch.setattr(utterances, "read_groups", lambda groups, *more: read.extend(groups) or one(groups, *more))
    call(command, *words)
    assert (tmp_path / f"table{suffix}").read_bytes() == whole
    files = [path for group in read for path in group]
    kept = {"before a chunk": 4, "half a chunk": 4, "after a chunk": 8, "the columns": 0, "the table": 18}[moment]
    assert len(files) == 18 - kept
    assert not list(tmp_path.glob("*.part"))


def test_a_process_killed_from_outside_is_resumed(model_folder, call, tmp_path):
    """As the user sees it, with processes that read."""
    rng = np.random.default_rng(0)
    (tmp_path / "clips").mkdir()
    for number in range(300):
        soundfile.write(tmp_path / "clips" / f"{number:03d}.wav", rng.normal(0, 0.1, 2000 + 8 * number), 16000)
    words = ["embed", str(tmp_path / "clips"), "--model", str(model_folder), "--device", "cpu", "--jobs", "2"]
    outputs = [tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ser_plugins", *words, "--output", str(outputs[0])]
    silent = {"stderr": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    process = subprocess.Popen(command, **silent, env=environment, start_new_session=True)
    part = tmp_path / "killed.jsonl.part"
    while process.poll() is None and not (part.exists() and part.stat().st_size > 10000):
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert part.exists() and not outputs[0].exists()
    for output in outputs:
        call(*words, "--output", output)
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    assert len(outputs[0].read_text().splitlines()) == 300
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # its reading processes may outlive it


@pytest.mark.parametrize("change", ["model", "labels", "file", "files", "batch"])
def test_a_part_of_another_table_is_refused(call, few, clips, tmp_path, monkeypatch, change, write_model):
    words, options = [clips, "--output", tmp_path / "table.csv"], {}
    with monkeypatch.context() as patch:
        patch.setattr("ser_plugins.files.os.replace", die)
        killed(call, "predict", *words)
    if change == "model":
        options["model"] = write_model(tmp_path / "other", "s3", seed=2)
    elif change == "labels":
        words += ["--labels", "happy,sad"]
    elif change == "batch":
        words += ["--batch_seconds", "9"]
    elif change == "files":
        words.insert(1, clips / "gone.wav")
    else:
        os.utime(clips / "silent.wav")
    with pytest.raises(
        SystemExit, match=r"^error: .*table\.csv\.part is of another model, .* delete it to start again$"
    ):
        call("predict", *words, **options)
    (tmp_path / "table.csv.part").unlink()
    call("predict", *words, **options)
    assert (tmp_path / "table.csv").exists()


def test_two_runs_do_not_write_one_table(call, clips, tmp_path):
    words = ("predict", clips, "--output", tmp_path / "table.csv")

    def another():
        with pytest.raises(SystemExit, match="another process is writing"):
            call(*words)
        die()

    part = table.PartialTable(words[-1], pa.schema({"path": pa.string()}), "any")
    killed(another)
    part.finish()


def test_a_table_is_printed(call, loaded_model, clips, capsys, monkeypatch):
    listed = f"\ufeff{clips}/short.wav\n\n{clips}/deep/er\n"  # a byte order mark, as some programs write it
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed.encode())))
    call("predict", "-", "--labels", "happy, sad")
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].split() == ["path", "seconds", "emotion", "probability", "error"]
    assert "too short" in lines[1] and len(lines) == 6
    expected = predict(loaded_model, [clips / "deep" / "er"], labels=["happy", "sad"])
    for line, row in zip(lines[2:], expected.to_dict("records"), strict=True):
        assert line.split()[:3] == [row["path"], f"{row['seconds']:.3f}", row["emotion"]]


def test_a_list_that_is_not_utf8_is_an_error(call, clips, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{clips}/short.wav\n".encode("utf-16"))))
    with pytest.raises(SystemExit, match=r"^error: standard input is UTF-16, not UTF-8; save it as UTF-8$"):
        call("predict", "-")


def test_bad_files_are_rows_with_errors_unless_all_are_bad(call, clips, caplog, tmp_path):
    call("embed", clips, "--output", tmp_path / "table.csv")
    assert "4 of 18 files could not be used" in caplog.text
    bad = [clips / "empty.wav", clips / "gone.wav"]
    with pytest.raises(SystemExit, match=r"^error: none of 2 files could be used; the first: .*empty"):
        call("embed", *bad, "--output", tmp_path / "bad.csv")
    assert pd.read_csv(tmp_path / "bad.csv")["error"].str.contains("readable|missing").all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "table.xlsx"], r"table\.xlsx is not a known kind of table; name it \.csv, \.jsonl, \.parquet"),
        (["--output", "folder.csv"], r"folder\.csv is a folder; give the name of a file as --output"),
        (["--labels", "glad"], "it has neutral, happy, sad"),
        (["--device", "abacus"], "no device abacus"),
        (["--jobs", "-1"], r"give --batch_seconds above 0, and --jobs of 0 \(no other process\) or more"),
        (["--batch_seconds", "0"], "give --batch_seconds above 0"),
        (["--hop", "2"], "predict takes no --window and --hop; use ser-plugins timeline"),
        (["--unknown", "50"], "unknown is 50.0; give a probability from 0 to 1"),
        (["--window", "3"], "predict takes no --window and --hop; use ser-plugins timeline"),
        (["--timeline", "--hop", "0"], "hop of 0.0 s: give a window of 0.1 to 600 s, a hop of 0.01 to 600 s"),
    ],
)
def test_wrong_options_are_one_line(model_folder, clips, tmp_path, words, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(SystemExit, match=rf"^error: .*{message}") as end:
        main(["predict", str(clips), "--model", str(model_folder), *words])
    assert "\n" not in str(end.value.code)


def test_each_recording_has_a_figure_of_its_own():
    files = ["x/a.wav", "y/a.wav", "z/a-2.wav", "z/a.wav", "b.flac"]
    figures = figure_paths(Path("out/all.csv"), files)
    assert [path.name for path in figures] == [f"all-{name}.png" for name in ("a", "a-2", "a-2-2", "a-3", "b")]


def test_timelines_are_a_table_and_a_figure_each(call, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a/talk", "b/talk"):
        (tmp_path / name).parent.mkdir()
        soundfile.write(tmp_path / f"{name}.wav", rng.normal(0, 0.1, 16000 * 5), 16000)
    (tmp_path / "a" / "void.wav").touch()
    words = [tmp_path / "a", tmp_path / "b", "--hop", "2", "--output", tmp_path / "out" / "all.jsonl"]
    call("timeline", *words)
    rows = [json.loads(line) for line in (tmp_path / "out" / "all.jsonl").read_text().splitlines()]
    assert [row["start"] for row in rows] == [0, 2, None, 0, 2]
    assert list(rows[0]) == ["path", "start", "end", "emotion", *LABELS, "error"]
    assert "void.wav" in rows[2]["error"] and rows[2]["emotion"] is None
    figures = {f"all-talk{again}.{kind}" for again in ("", "-2") for kind in ("png", "svg")}
    assert set(os.listdir(tmp_path / "out")) == figures | {"all.jsonl"}


@pytest.mark.parametrize("messages", [2, 4, 6])
def test_killed_timelines_are_resumed(call, tmp_path, monkeypatch, messages):
    for number in range(3):
        samples = np.random.default_rng(number).normal(0, 0.1, 16000 * 4)
        soundfile.write(tmp_path / f"{number}.wav", samples, 16000)
    (tmp_path / "1.wav").write_text("no sound")
    words = [tmp_path / "*.wav", "--output", tmp_path / "table.csv", "--window", "0.5", "--hop", "0.1"]
    call("timeline", *words)
    whole = (tmp_path / "table.csv").read_bytes()
    assert len(whole.splitlines()) == 1 + 36 + 1 + 36
    (tmp_path / "table.csv").unlink()
    (tmp_path / "table-2.png").unlink()
    write, written = table.PartialTable._write, []

    def spoiled(part, message):
        written.append(message)
        write(part, message)
        if len(written) == messages:
            die()

    with monkeypatch.context() as patch:
        patch.setattr(table.PartialTable, "_write", spoiled)
        killed(call, "timeline", *words)
    monkeypatch.setattr(
        table.PartialTable, "append", lambda part, chunk: (written.append(chunk), write(part, chunk.serialize()))
    )
    call("timeline", *words)
    assert (tmp_path / "table.csv").read_bytes() == whole
    assert len(written) == 1 + 2 + 1 + 2 - messages  # the columns and the finished chunks
    assert (tmp_path / "table-2.png").exists()


def test_the_old_spelling_of_timeline_still_works(call, clips, capsys):
    path = next(clips.glob("clip*.WAV"))
    call("predict", path, "--timeline", "--hop", "2")
    old = capsys.readouterr().out
    call("timeline", path, "--hop", "2")
    assert capsys.readouterr().out == old and old.split()[:3] == ["path", "start", "end"]


def test_a_file_whose_name_starts_with_a_dash_is_no_option(call, clips, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("-leading-dash.wav").write_bytes(next(clips.glob("clip*.WAV")).read_bytes())
    call("predict", "-leading-dash.wav")
    assert capsys.readouterr().out.splitlines()[1].split()[0] == "./-leading-dash.wav"
    call("embed", "*.wav", "--output", "table.csv")
    assert pd.read_csv("table.csv")["path"].tolist() == ["-leading-dash.wav"]
    with pytest.raises(SystemExit) as end:  # no such file: an unknown option
        call("predict", "-missing.wav")
    assert end.value.code == 2


def test_tables_are_written_where_there_is_no_fcntl(clips, model_folder, tmp_path):
    """As on Windows; in a process of its own, which has imported nothing."""
    words = ["predict", str(next(clips.glob("clip*.WAV"))), "--model", str(model_folder), "--jobs", "0"]
    words += ["--device", "cpu", "--output", str(tmp_path / "table.csv")]
    code = f"import sys; sys.modules['fcntl'] = None; from ser_plugins.commands import main; main({words})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path) == ["table.csv"]


def test_a_file_that_is_no_part_of_the_table_is_left_alone(call, clips, tmp_path):
    (tmp_path / "table.csv.part").write_text("mine\n")
    with pytest.raises(SystemExit, match=r"table\.csv\.part is no part of this table; move it, or give another"):
        call("predict", clips, "--output", tmp_path / "table.csv")
    assert (tmp_path / "table.csv.part").read_text() == "mine\n"


def test_a_listed_name_may_have_any_bytes_but_a_line_feed(call, clips, tmp_path, monkeypatch, capsys):
    names = [os.path.join(os.fsencode(tmp_path), name) for name in (b"lat\xe9.wav", "a\u2028b.wav".encode())]
    for name in names:
        shutil.copy(os.fsencode(clips / "deep" / "er" / sorted(os.listdir(clips / "deep" / "er"))[0]), name)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n".join(names))))
    call("predict", "-")
    assert "missing" not in capsys.readouterr().out


def test_a_reader_that_stops_ends_the_command_quietly(model_folder, clips):
    command = [sys.executable, "-c", "from ser_plugins.commands import main; main()", "predict", str(clips)]
    command += ["--model", str(model_folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 1
