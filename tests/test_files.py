"""Files written whole or not at all."""

import os
import stat
import subprocess
import sys

import pytest

from ser_plugins.errors import InputError
from ser_plugins.files import atomic_path, atomic_write, lock_folder


@pytest.mark.parametrize("data, expected", [("é\n", "é\n".encode()), (b"\x00\r\n", b"\x00\r\n"), ("", b"")])
def test_writes_exactly_what_is_given(tmp_path, data, expected):
    path = tmp_path / "new" / "folder" / "file.bin"
    atomic_write(path, data)
    assert path.read_bytes() == expected
    assert os.listdir(path.parent) == ["file.bin"]


def test_overwrites(tmp_path):
    path = tmp_path / "file.txt"
    atomic_write(path, "old and long")
    atomic_write(str(path), "new")
    assert path.read_text() == "new"


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file.txt"
    atomic_write(path, "old")
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_the_temporary_path_keeps_the_suffix(tmp_path):
    with atomic_path(tmp_path / "figure.png") as part:
        assert part.suffix == ".png" and part.parent == tmp_path


def test_permissions_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        atomic_write(tmp_path / "file.txt", "")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "file.txt").stat().st_mode) == 0o640


def test_a_folder_is_not_written_over(tmp_path):
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*model.onnx \(.*\); give another name"):
        atomic_write(tmp_path / "model.onnx", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="give another folder"):
        atomic_write(tmp_path / "file" / "below.txt", "")


def test_a_folder_is_locked_by_one_process_at_a_time(tmp_path):
    words = [
        sys.executable,
        "-c",
        "from ser_plugins.files import lock_folder; from pathlib import Path; import sys, time\n",
    ]
    words[-1] += "with lock_folder(Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
    folder = tmp_path / "new" / "fold1"
    with subprocess.Popen([*words, str(folder)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        with pytest.raises(InputError, match=r"another process works in .*fold1; wait"), lock_folder(folder):
            pass
        other.kill()
    with lock_folder(folder), pytest.raises(InputError), lock_folder(folder):
        pass
    with lock_folder(folder), pytest.raises(BlockingIOError):
        raise BlockingIOError  # what goes wrong inside is not taken for it
    assert not folder.exists()
    with lock_folder(folder):
        (folder / "metrics.json").write_text("{}")
    assert (folder / "metrics.json").is_file()
