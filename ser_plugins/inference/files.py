"""Sound files: found below folders, read by several processes while the network computes."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import soundfile
import torch
from torch.utils.data import DataLoader, Dataset

from ser_plugins.audio.speech import AAC_SUFFIXES, Samples, SpeechNormalizer, is_silent, join, load_audio
from ser_plugins.corpora.files import walk
from ser_plugins.errors import InputError

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".w64", *AAC_SUFFIXES)
MAX_SECONDS = 600.0  # of an utterance: the network needs some 8 MB a second


class Clip(NamedTuple):
    """What was read of a file: seconds of the recording, its speech at the model's rate, or what is wrong with it."""

    seconds: float
    speech: Samples | None
    error: str | None


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


def readable(name: str) -> str:
    """Replace the bytes of a name that are no UTF-8: tables take none."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def header_seconds(paths: Sequence[str]) -> list[float]:
    """Tell the length of each file by its header; 0 where it cannot be told: reading it will tell why."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_header_seconds, paths))


def _header_seconds(path: str) -> float:
    try:
        if Path(path).suffix.lower() not in AAC_SUFFIXES:
            return float(soundfile.info(os.fsencode(path)).duration)
        import av  # noqa: PLC0415

        with av.open(path) as container:
            return float((container.duration or 0) / av.time_base)
    except Exception:  # whatever a decoder says of what is no sound: it is told when the file is read
        return 0.0


def reason(path: str, error: Exception) -> str:
    """Say in one line what is wrong with a file, and name it."""
    told = " ".join(str(error).split())
    return told if path in told else f"{path}: {told}"


class _Groups(Dataset[list[Clip]]):
    """Groups of files, each read at once, so that their speech is found together."""

    def __init__(self, groups: Sequence[Sequence[str]], normalizer: SpeechNormalizer) -> None:
        self.groups = groups
        self.normalizer = normalizer

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> list[Clip]:
        return read_together(self.groups[index], self.normalizer)


def read_groups(groups: Sequence[Sequence[str]], normalizer: SpeechNormalizer, jobs: int) -> Iterator[list[Clip]]:
    """Read groups of files in ``jobs`` processes (0: in this one), some groups ahead; they come in their order."""
    jobs = min(jobs, len(groups) - 1)  # one group alone is read as soon here
    return iter(
        DataLoader(
            _Groups(groups, normalizer),
            batch_size=None,
            num_workers=max(jobs, 0),
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # that of the process is the user's
        )
    )


def _as_it_is(clips: list[Clip]) -> list[Clip]:
    return clips


def read_together(paths: Sequence[str], normalizer: SpeechNormalizer) -> list[Clip]:
    """Read files of like length and find their speech; what is wrong with a file is told of it alone."""
    clips: list[Clip] = []
    signals: dict[int, torch.Tensor] = {}
    for path in paths:
        seconds = 0.0
        try:
            samples, rate = load_audio(path)
            seconds = len(samples) / rate
            if seconds > MAX_SECONDS:
                raise InputError(f"{seconds:.0f} s of audio is too long for one utterance; give --timeline, or cut it")
            if is_silent(samples.mean(1)):
                raise InputError("it is silent; record it again")
            signals[len(clips)] = normalizer.convert(torch.from_numpy(samples), rate)
            clips.append(Clip(seconds, None, None))
        except Exception as error:  # whatever a decoder says of what is no sound
            clips.append(Clip(seconds, None, reason(path, error)))
    segments = normalizer.find_speech(list(signals.values()))
    for (row, signal), found in zip(signals.items(), segments, strict=True):
        clips[row] = clips[row]._replace(speech=join(signal, found).numpy())
    return clips
