"""Sound files: found below folders, read by several processes while the network computes."""

from __future__ import annotations

import glob
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch

from ser_plugins.audio.checks import MAX_SECONDS, SILENT, is_silent
from ser_plugins.audio.reading import Samples, announced_seconds, read_audio
from ser_plugins.audio.resampling import resample
from ser_plugins.audio.speech import SpeechNormalizer, downmix, join
from ser_plugins.errors import InputError
from ser_plugins.files import walk

SUFFIXES = (
    *(".wav", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".m4a", ".mp4", ".aac", ".aif", ".aiff"),
    *(".aifc", ".au", ".caf", ".amr", ".3gp", ".wma", ".webm", ".mka"),
)
AHEAD = 2  # groups that a process has read, or reads, before they are asked for


class Clip(NamedTuple):
    """What was read of a file: its speech, or what is wrong with it."""

    seconds: float  # of the recording
    speech: Samples | None  # samples [T] at the model's rate; None where there is an error
    error: str | None
    warning: str | None = None  # how much of the file is missing


def find_files(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Find the sound files that paths name.

    Parameters
    ----------
    paths : iterable of str or os.PathLike
        Files, whether they are there or not; folders, whose sound files are taken at any depth, by suffix, in the order
        of their names; patterns (``**/*.wav``).

    Returns
    -------
    list of str
        Each once, in the order given.

    Raises
    ------
    InputError
        If a folder or a pattern has no sound file.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in ("b.wav", "a.FLAC", "notes.txt"):
    ...     (folder / name).touch()
    >>> [os.path.basename(path) for path in find_files([folder / "b.wav", folder])]
    ['b.wav', 'a.FLAC']
    """
    found: dict[str, str] = {}
    for path in paths:
        for file in _expand(os.fspath(path)):
            found.setdefault(os.path.abspath(file), file)
    return list(found.values())


def _expand(path: str) -> list[str]:
    if os.path.isdir(path):
        below = [str(file) for file in sorted(walk(Path(path), SUFFIXES))]
        if not below:
            raise InputError(f"no sound file is below {path}; give another folder")
        return below
    if glob.has_magic(path) and not os.path.exists(path):
        matches = sorted(glob.glob(path, recursive=True))
        if not matches and not set("*?") & set(path):
            return [path]  # names have brackets, too: a file that is missing is told of it alone
        if not matches:
            raise InputError(f"no file matches {path}; give another pattern")
        return [file for match in matches for file in _expand(match)]
    return [path]


def header_seconds(paths: Sequence[str]) -> list[float]:
    """Return the length of each file by its header, for plans; 0 where it is unknown."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(partial(announced_seconds, guess=True), paths))


def reason(path: str, error: Exception) -> str:
    """Say in one line what is wrong with a file, and name it."""
    told = " ".join(str(error).split())
    return told if path in told else f"{path}: {told}"


def read_groups(
    groups: Sequence[Sequence[str]], normalizer: SpeechNormalizer, jobs: int, apart: bool = False
) -> Iterator[list[Clip]]:
    """Read groups of files in ``jobs`` processes (0: in this one), some groups ahead; they come in their order.

    Where a process dies, as of too little memory, each file of the group is read once more in a process of its own. A
    file whose process dies again has an error, and the run continues. With ``apart`` this process reads none.
    """
    jobs = max(jobs, 1) if apart else min(jobs, len(groups) - 1)  # one group alone is read as soon here
    if jobs < 1:
        yield from (read_together(group, normalizer) for group in groups)
        return
    done = 0
    while done < len(groups):
        with suppress(BrokenProcessPool):
            for clips in _read_ahead(groups[done:], normalizer, jobs):
                yield clips
                done += 1
        if done < len(groups):
            yield [_read_apart(path, normalizer) for path in groups[done]]
            done += 1


def _read_ahead(groups: Sequence[Sequence[str]], normalizer: SpeechNormalizer, jobs: int) -> Iterator[list[Clip]]:
    pool = ProcessPoolExecutor(jobs, initializer=_begin_reading, initargs=(os.getpid(),))
    try:
        left = iter(groups)
        waiting = deque(pool.submit(read_together, group, normalizer) for group in islice(left, AHEAD * jobs))
        while waiting:
            clips = waiting.popleft().result()
            waiting.extend(pool.submit(read_together, group, normalizer) for group in islice(left, 1))
            yield clips
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _read_apart(path: str, normalizer: SpeechNormalizer) -> Clip:
    try:
        return next(_read_ahead([[path]], normalizer, 1))[0]
    except BrokenProcessPool:
        return Clip(
            0.0, None, f"{path}: the process that read it died, of too little memory perhaps; convert it to WAV"
        )


def _begin_reading(parent: int) -> None:
    """Leave the processors to the network and interrupts to the parent, and end when that ends, however it does."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def read_together(paths: Sequence[str], normalizer: SpeechNormalizer) -> list[Clip]:
    """Read files of like length and find their speech; an error of one file is in its clip alone."""
    clips: list[Clip] = []
    signals: dict[int, torch.Tensor] = {}
    for path in paths:
        seconds, warning = 0.0, None
        try:
            samples, rate, warning = read_audio(path, MAX_SECONDS)
            seconds = len(samples) / rate
            mono = downmix(torch.from_numpy(samples), rate)
            if is_silent(mono):
                raise InputError(SILENT)
            signals[len(clips)] = resample(mono, rate)
            clips.append(Clip(seconds, None, None, warning))
        except Exception as error:  # whatever a decoder says of what is no sound
            clips.append(Clip(seconds or announced_seconds(path), None, reason(path, error), warning))
    segments = normalizer.find_speech(list(signals.values()))
    for (row, speech), found in zip(signals.items(), segments, strict=True):
        clips[row] = clips[row]._replace(speech=join(speech, found).numpy())
    return clips
