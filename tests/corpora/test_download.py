"""Archives from a local server, well-behaved or not."""

import hashlib
import io
import os
import socket
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import soundfile as sf

from ser_plugins.corpora import Ravdess, ravdess
from ser_plugins.corpora.download import Archive, fetch
from ser_plugins.errors import InputError

STEM = "03-01-05-01-02-01-16"


def zipped():
    wav, content = io.BytesIO(), io.BytesIO()
    noise = np.random.default_rng(0).normal(scale=0.1, size=16000)  # does not compress
    sf.write(wav, noise, 16000, format="WAV", subtype="PCM_16")
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(f"Actor_16/{STEM}.wav", wav.getvalue())
        archive.writestr("Actor_16/notes.txt", "by hand")
    return content.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Answers as its server's ``ranges``, ``cut`` (bytes until the connection ends) and ``status`` say."""

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if self.server.status == "nonsense":
            self.wfile.write(b"no HTTP\r\n")
            return
        if self.server.status:
            self.send_error(self.server.status)
            return
        content = self.server.content
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[start:][: self.server.cut])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.content, server.asked = zipped(), []
        server.ranges, server.cut, server.status = True, None, None
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def archive_of(server, **changes):
    plain = {
        "url": f"http://127.0.0.1:{server.server_port}/files/Speech.zip",
        "md5": hashlib.md5(server.content).hexdigest(),
        "size": len(server.content),
    }
    return Archive(**{**plain, **changes})


def check_unpacked(folder):
    assert sorted(os.listdir(folder)) == ["Speech"], "nothing else is left"
    assert sorted(os.listdir(folder / "Speech" / "Actor_16")) == [f"{STEM}.wav", "notes.txt"]
    assert sf.info(folder / "Speech" / "Actor_16" / f"{STEM}.wav").frames == 16000


@pytest.mark.parametrize("ranges", [True, False])
def test_an_archive_is_downloaded_and_unpacked_once(server, tmp_path, ranges):
    server.ranges = ranges
    folder = tmp_path / "new" / "folder"
    fetch(archive_of(server), folder)
    check_unpacked(folder)
    assert server.asked == [None]
    (folder / "Speech" / "Actor_16" / "notes.txt").write_text("mine")
    fetch(archive_of(server), folder)
    assert server.asked == [None], "what is unpacked is not asked for"
    assert (folder / "Speech" / "Actor_16" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_was_cut_off_goes_on(server, tmp_path, ranges):
    server.ranges = ranges
    server.cut = 5000
    with pytest.raises(InputError, match="run the same command again"):
        fetch(archive_of(server), tmp_path)
    assert os.listdir(tmp_path) == ["Speech.zip.part"]
    assert (tmp_path / "Speech.zip.part").read_bytes() == server.content[:5000]
    if ranges:  # and again
        with pytest.raises(InputError, match="run the same command again"):
            fetch(archive_of(server), tmp_path)
        assert (tmp_path / "Speech.zip.part").read_bytes() == server.content[:10000]
    server.cut = None
    fetch(archive_of(server), tmp_path)
    check_unpacked(tmp_path)
    assert server.asked == ([None, "bytes=5000-", "bytes=10000-"] if ranges else [None, "bytes=5000-"])


def test_a_wrong_checksum_deletes_the_file(server, tmp_path):
    wrong = archive_of(server, md5="0" * 32)
    with pytest.raises(InputError, match=r"Speech\.zip: the checksum differs"):
        fetch(wrong, tmp_path)
    assert os.listdir(tmp_path) == []
    fetch(archive_of(server), tmp_path)
    check_unpacked(tmp_path)


def test_a_damaged_part_is_found_out(server, tmp_path):
    (tmp_path / "Speech.zip.part").write_bytes(b"x" * 100)
    with pytest.raises(InputError, match="the checksum differs"):
        fetch(archive_of(server), tmp_path)
    fetch(archive_of(server), tmp_path)
    check_unpacked(tmp_path)


def test_an_unpacking_that_was_cut_off_needs_no_network(server, tmp_path, monkeypatch):
    extract = zipfile.ZipFile.extract

    def interrupted(self, member, *args):
        if member.filename.endswith("notes.txt"):
            raise KeyboardInterrupt
        return extract(self, member, *args)

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "extract", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(archive_of(server), tmp_path)
    assert not (tmp_path / "Speech").exists()
    (tmp_path / ".Speech.part" / "Actor_16" / "old.wav").write_text("of another try")
    fetch(archive_of(server), tmp_path)
    check_unpacked(tmp_path)
    assert server.asked == [None]


def test_addresses_that_do_not_answer_are_named(server, tmp_path):
    with socket.socket() as idle:
        idle.bind(("127.0.0.1", 0))  # bound, but nobody listens
        url = f"http://127.0.0.1:{idle.getsockname()[1]}/Speech.zip"
        with pytest.raises(InputError, match=f"cannot download {url}"):
            fetch(archive_of(server, url=url), tmp_path)
    server.status = 404
    with pytest.raises(InputError, match=r"cannot download .*404"):
        fetch(archive_of(server), tmp_path)
    server.status = "nonsense"
    with pytest.raises(InputError, match="cannot download"):
        fetch(archive_of(server), tmp_path)
    assert not (tmp_path / "Speech").exists()


def test_a_folder_that_cannot_be_made_is_named(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot write .*file"):
        fetch(archive_of(server), tmp_path / "file")
    assert server.asked == []


def test_ravdess_is_downloaded_and_read(server, tmp_path, monkeypatch):
    monkeypatch.setattr(ravdess, "ARCHIVE", archive_of(server))
    for _ in range(2):
        (row,) = Ravdess(str(tmp_path), download=True, allow_incomplete=True).read().table.itertuples()
        assert (row.id, row.emotion, row.speaker) == (STEM, "angry", "16")
    assert server.asked == [None]
    assert ravdess.ARCHIVE.name == "Speech.zip"


def test_ravdess_comes_from_zenodo():
    assert ravdess.ARCHIVE.name == "Audio_Speech_Actors_01-24.zip"
    assert ravdess.ARCHIVE.url.startswith("https://zenodo.org/records/1188976/files/")
