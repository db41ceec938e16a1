"""Prepared audio: once for each content and setting, whole or not at all."""

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile as sf
import torch

from ser_plugins.audio.speech import SpeechNormalizer
from ser_plugins.corpora.prepared import prepare
from ser_plugins.errors import InputError

PLAIN = SpeechNormalizer(vad="none")


@pytest.fixture
def clips(tmp_path):
    """Five sounds, the last with the first one's content."""
    paths = [tmp_path / f"{name}.wav" for name in "edcba"]
    for seed, path in enumerate(paths):
        sf.write(path, np.random.default_rng(seed).normal(scale=0.1, size=(8820, 2)), 44100)
    shutil.copy(paths[0], paths[-1])
    return paths


def everything(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def as_tensor(path):
    samples, rate = sf.read(path, dtype="float32", always_2d=True)
    return torch.from_numpy(samples), rate


def check(prepared, paths, normalizer=PLAIN):
    assert len(prepared) == len(paths)
    for done, path in zip(prepared, paths, strict=True):
        samples = np.load(done)
        assert samples.dtype == np.float32 and samples.ndim == 1
        expected = normalizer.remove_silence(normalizer.convert(*as_tensor(path)))  # which may be silent
        assert torch.equal(torch.from_numpy(samples), expected), path


@pytest.mark.parametrize("workers", [1, 2, None])
def test_results_are_the_normalizers_in_the_order_of_the_paths(tmp_path, clips, workers):
    cache = tmp_path / "new" / "cache"
    check(prepare(clips, PLAIN, cache, workers), clips)
    check(prepare([str(path) for path in reversed(clips)], PLAIN, str(cache), workers), clips[::-1])


@pytest.mark.parametrize("workers", [1, 2])
def test_speech_that_is_found_together_is_that_of_each_file(tmp_path, workers):
    """Bursts of noise, which Silero takes for speech, and silence, of all lengths."""
    random, paths = np.random.default_rng(0), []
    for number in range(12):
        parts = [random.normal(scale=0.1 * (n % 2), size=random.integers(4000, 20000)) for n in range(1 + number % 5)]
        paths.append(tmp_path / f"{number}.wav")
        sf.write(paths[-1], np.concatenate(parts), 16000)
    normalizer = SpeechNormalizer()
    check(prepare(paths, normalizer, tmp_path / "cache", workers), paths, normalizer)


def test_one_content_is_prepared_once(tmp_path, clips):
    cache = tmp_path / "cache"
    prepared = prepare(clips, PLAIN, cache, 1)
    assert prepared[0] == prepared[-1]
    assert len(set(prepared)) == 4
    assert everything(cache) == sorted(set(prepared)), "and nothing else is kept"


def test_what_is_there_is_not_computed_again(tmp_path, clips, monkeypatch):
    cache = tmp_path / "cache"
    prepared = prepare(clips[:3], PLAIN, cache, 1)
    for path in prepared:
        os.utime(path, (1, 1))
    normalized = []
    convert = SpeechNormalizer.convert
    monkeypatch.setattr(SpeechNormalizer, "convert", lambda *args: normalized.append(args) or convert(*args))
    again = prepare(clips, PLAIN, cache, 1)
    assert again[:3] == prepared
    assert [path.stat().st_mtime == 1 for path in again] == [True, True, True, False, True]
    assert len(normalized) == 1


def test_other_content_or_settings_have_other_files(tmp_path, clips):
    cache = tmp_path / "cache"
    (before,) = prepare(clips[:1], PLAIN, cache, 1)
    assert prepare(clips[:1], SpeechNormalizer("none"), cache, 1) == [before], "equal settings"
    others = [SpeechNormalizer(vad="webrtc"), SpeechNormalizer(vad="silero")]
    found = [before]
    for normalizer in others:
        prepared = prepare(clips[:1], normalizer, cache, 1)
        check(prepared, clips[:1], normalizer)
        found += prepared
    status = clips[0].stat()
    samples, rate = sf.read(clips[0])
    sf.write(clips[0], samples[::-1], rate)
    os.utime(clips[0], ns=(status.st_atime_ns, status.st_mtime_ns))  # only the bytes differ
    found += prepare(clips[:1], PLAIN, cache, 1)
    check(found[-1:], clips[:1])
    assert len(set(found)) == 4


@pytest.mark.parametrize("workers", [1, 2])
def test_unusable_files_are_named(tmp_path, clips, workers):
    cache = tmp_path / "cache"
    with pytest.raises(InputError, match=r"nowhere\.wav is missing"):
        prepare([*clips, tmp_path / "nowhere.wav"], PLAIN, cache, workers)
    assert everything(cache) == [], "all are looked at before any is prepared"
    sf.write(clips[2], np.zeros(10), 16000)
    with pytest.raises(InputError, match=f"{clips[2]}.*too short"):
        prepare(clips, PLAIN, cache, workers)
    good = [path for path in clips if path != clips[2]]
    check(prepare(good, PLAIN, cache, workers), good)


@pytest.mark.slow
def test_a_process_that_dies_is_an_error_of_one_line(tmp_path, clips):
    class Deadly(SpeechNormalizer):
        def convert(self, *_):
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(InputError, match=r"^a process that prepared audio died, perhaps of too little memory; .*$"):
        prepare(clips, Deadly(vad="none"), tmp_path / "cache", 2)


def test_a_pipe_is_an_error_at_once(tmp_path, clips):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(InputError, match=r"pipe\.wav is a pipe"):
        prepare([*clips, tmp_path / "pipe.wav"], PLAIN, tmp_path / "cache", 1)


def test_nothing_to_prepare(tmp_path):
    assert prepare([], PLAIN, tmp_path / "cache") == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path, clips):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot write .*file"):
        prepare(clips, PLAIN, tmp_path / "file", 1)


def test_a_failure_while_writing_leaves_nothing(tmp_path, clips, monkeypatch):
    cache = tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(clips, PLAIN, cache, 1)
    assert everything(cache) == []
    check(prepare(clips, PLAIN, cache, 1), clips)


def interrupt(*_):
    raise KeyboardInterrupt


PREPARE = """
import os, signal, sys
from pathlib import Path
from ser_plugins.corpora.prepared import prepare
from ser_plugins.audio.speech import SpeechNormalizer

cache, half, *paths = sys.argv[1:]
if half:
    def write_bytes(path, content):
        path.open("wb", buffering=0).write(content[:100])
        os.kill(os.getpid(), signal.SIGKILL)
    Path.write_bytes = write_bytes
print("ready", flush=True)
sys.stdin.readline()
prepare(paths, SpeechNormalizer(vad="none"), cache, 1)
"""


def start(cache, paths, half=""):
    """Start a process that prepares files after a signal."""
    command = [sys.executable, "-c", PREPARE, str(cache), half, *map(str, paths)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


@pytest.mark.slow
def test_processes_that_are_killed_or_at_work_together_leave_whole_files(tmp_path, clips):
    cache = tmp_path / "cache"
    killed, *together = processes = [start(cache, clips, "half"), start(cache, clips), start(cache, clips)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        killed.communicate("go\n", timeout=300)
        assert killed.returncode == -signal.SIGKILL
        (half,) = everything(cache)
        assert half.stat().st_size == 100, "killed while it wrote"

        for process in together:
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in together:
            process.communicate(timeout=300)
            assert process.returncode == 0
    finally:
        for process in processes:
            process.kill()
    written = {path: path.stat().st_mtime_ns for path in everything(cache)}
    prepared = prepare(clips, PLAIN, cache, 1)
    check(prepared, clips)
    assert {path: path.stat().st_mtime_ns for path in everything(cache)} == written
    assert set(written) - set(prepared) == {half}
