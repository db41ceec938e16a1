"""Sound files of any format, read until the decoder has no more: the one loop for whole files and for streams."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import soundfile

from ser_plugins.errors import InputError

SAMPLE_RATE = 16000  # of all speech that a network takes
Samples = np.ndarray[Any, np.dtype[np.float32]]
logger = logging.getLogger(__name__)

HEAD = 64  # bytes
LFS_POINTER = b"version https://git-lfs"
# libsndfile corrects the length of a file that was cut off, and leaves a note of it.
CORRECTED = re.compile(r"\b(?:data|SSND|Data Size|Riff size|riff)\s*:\s*(\d+) \(should be (\d+)\)")
UNKNOWN_LENGTH = 0x7FFF0000  # bytes; programs that write to a pipe announce as many, or more
UNKNOWN_FRAMES = 1 << 60
LEAST_BYTES = 32.0  # a second, of any codec: a file cannot hold what a header announces beyond that
TOLERANCE = 0.1, 0.01  # seconds and share that may be missing without a warning: codecs pad their ends


class Recording(NamedTuple):
    """What was read of a sound file.

    Attributes
    ----------
    samples : numpy.ndarray
        float32 samples [T, channels].
    rate : int
        Samples per second.
    warning : str or None
        How much is missing, where the file announces far more.
    """

    samples: Samples
    rate: int
    warning: str | None


class AudioStream:
    """A sound file as blocks of samples, read until its decoder has no more.

    libsndfile reads most formats. FFmpeg reads MP3 and FLAC, of which libsndfile reads as many samples as the header
    says, formats that libsndfile does not know, and the rest of a file where libsndfile stops early.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    block_seconds : float
        Length of a block at most.

    Attributes
    ----------
    rate : int
        Samples per second, from the first block on.
    samples : int
        Samples of a channel that were read so far.

    Raises
    ------
    InputError
        On iterating, if the file is missing, no regular file, no sound, or a Git LFS pointer; the message names it.

    Example
    -------
    >>> path = getfixture("tmp_path") / "clip.wav"
    >>> soundfile.write(path, np.zeros(24000), 16000)
    >>> stream = AudioStream(path, block_seconds=1)
    >>> [(block.shape, rate) for block, rate in stream], stream.warning
    ([((16000, 1), 16000), ((8000, 1), 16000)], None)
    """

    def __init__(self, path: str | os.PathLike[str], block_seconds: float = 10.0) -> None:
        self.path = os.fspath(path)
        self.block_seconds = block_seconds
        self.rate = self.samples = 0
        self._announced = 0.0

    def __iter__(self) -> Iterator[tuple[Samples, int]]:
        """Yield blocks of samples [T, channels], float32, and their rate."""
        self.rate = self.samples = 0
        self._announced = 0.0
        head = check_file(self.path)
        for block in self._decode(head):
            self.samples += len(block)
            yield block, self.rate

    @property
    def warning(self) -> str | None:
        """How much is missing, once the stream has ended; None where little or nothing is."""
        read = self.samples / max(self.rate, 1)
        seconds, share = TOLERANCE
        if self._announced - read <= max(seconds, share * self._announced):
            return None
        return (
            f"only {read:.2f} s of {self._announced:.2f} s could be read; "
            "the file is cut off or damaged: copy it again, if it is whole elsewhere"
        )

    def _decode(self, head: bytes) -> Iterator[Samples]:
        file = _open(self.path, head)
        if file is not None:
            with file, suppress(soundfile.LibsndfileError):
                self.rate, self._announced = file.samplerate, _announced_by(file)
                while len(block := file.read(self._size(), dtype="float32", always_2d=True)):
                    yield block
                if 0 < file.frames <= self.samples:
                    return
        try:
            yield from self._decode_by_ffmpeg()
        except (OSError, ValueError, ArithmeticError) as error:
            if file is None and not self.samples:
                reason = (getattr(error, "strerror", None) or str(error)).rstrip(".")
                raise InputError(
                    f"{self.path} is not readable as audio ({reason}); copy it again, or convert it to WAV"
                ) from error

    def _decode_by_ffmpeg(self) -> Iterator[Samples]:
        """Yield what comes after the samples that were read before."""
        from ser_plugins.audio.ffmpeg import FFmpegFile  # noqa: PLC0415 — most files do not need it

        known = self.samples
        waiting: list[Samples] = []
        with FFmpegFile(self.path) as file:
            for block, rate in file.blocks(self.rate if known else None):
                self.rate = rate
                new, known = block[known:], max(known - len(block), 0)
                waiting.append(new)
                if sum(map(len, waiting)) >= self._size():
                    *blocks, rest = _cut(np.concatenate(waiting), self._size())
                    yield from blocks
                    waiting = [rest]
            if sum(map(len, waiting)):
                yield np.concatenate(waiting)
            if not self.samples:
                raise ValueError("no audio in it")
            self._announced = max(self._announced, file.announced, self.samples / self.rate + file.lost)

    def _size(self) -> int:
        return max(1, round(self.block_seconds * self.rate))


def _cut(samples: Samples, size: int) -> list[Samples]:
    """Cut samples into blocks of ``size``, and a last one that is shorter."""
    return np.split(samples, range(size, len(samples) + 1, size))


def read_audio(path: str | os.PathLike[str], most_seconds: float | None = None) -> Recording:
    """Read a sound file.

    Parameters
    ----------
    path : str or os.PathLike
        The file, of any format, rate and channels.
    most_seconds : float, optional
        Length from which on it is refused, by its header or as soon as it has been read so far.

    Returns
    -------
    Recording
        Samples [T, channels], their rate, and a warning where far fewer came than the file announces.

    Raises
    ------
    InputError
        If the file is missing, no regular file, no sound, a Git LFS pointer, or too long; the message names it.
    """
    if most_seconds is not None:
        _check_length(path, announced_seconds(path), most_seconds)
    stream = AudioStream(path)
    blocks = []
    for block, rate in stream:
        blocks.append(block)
        if most_seconds is not None:
            _check_length(path, stream.samples / rate, most_seconds)
    return Recording(np.concatenate(blocks) if blocks else np.empty((0, 1), np.float32), stream.rate, stream.warning)


def load_audio(path: str | os.PathLike[str]) -> tuple[Samples, int]:
    """Read a sound file as `read_audio`: samples [T, channels] and their rate. A warning is logged."""
    samples, rate, warning = read_audio(path)
    if warning:
        logger.warning("%s: %s", path, warning)
    return samples, rate


def stream_audio(path: str | os.PathLike[str], seconds: float = 10.0) -> AudioStream:
    """Read a sound file block by block, ``seconds`` at most; see `AudioStream`."""
    return AudioStream(path, seconds)


def announced_seconds(path: str | os.PathLike[str], guess: bool = False) -> float:
    """Return the length that a file's header announces; 0 where it announces none that the file can hold.

    It serves plans and early refusals: what a file holds is known once it has been read. With ``guess``, an estimate by
    the bit rate serves as well.
    """
    path = os.fspath(path)
    try:
        file = _open(path, check_file(path))
        if file is not None:
            with file:
                return _credible(file.frames / file.samplerate, path)
        from ser_plugins.audio.ffmpeg import FFmpegFile  # noqa: PLC0415

        with FFmpegFile(path) as decoder:
            return _credible(decoder.guessed if guess else decoder.announced, path)
    except (OSError, ValueError, ArithmeticError):  # reading it says why
        return 0.0


def check_file(path: str) -> bytes:
    """Return the beginning of a regular file that may be sound.

    Raises
    ------
    InputError
        If it is missing, a folder, a pipe, a socket or a device, empty, not to be read, or a Git LFS pointer.
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{path} is a folder; give a sound file")
        if not stat.S_ISREG(mode):
            raise InputError(f"{path} is a pipe, a socket or a device; save the audio as a file")
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path} is missing; copy it again, or correct the path") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    if head.startswith(LFS_POINTER):
        raise InputError(f"{path} is a Git LFS pointer, not audio; run git lfs pull in its folder")
    if not head:
        raise InputError(f"{path} is not readable as audio (it is empty); copy it again")
    return head


def is_mpeg(path: str, head: bytes) -> bool:
    """Return True for MP3 and AAC, by the name of a file and its first bytes."""
    return path.lower().endswith((".mp3", ".mp2")) or head.startswith(b"ID3") or head[:2] >= b"\xff\xe0"


def _open(path: str, head: bytes) -> soundfile.SoundFile | None:
    """Open a file that libsndfile reads to its end; None for another.

    Of MP3 and FLAC it reads as many samples as their header says, and no more.
    """
    if is_mpeg(path, head) or head.startswith(b"fLaC"):
        return None
    try:
        file = soundfile.SoundFile(os.fsencode(path))
    except (soundfile.LibsndfileError, TypeError):  # TypeError: a name in .raw
        return None
    if file.format == "MP3":
        file.close()
        return None
    return file


def _announced_by(file: soundfile.SoundFile) -> float:
    """Return the seconds that a header announces, before libsndfile corrected it to what the file holds."""
    sizes = [(int(said), int(found)) for said, found in CORRECTED.findall(file.extra_info)]
    ratio = max((said / found for said, found in sizes if found and said < UNKNOWN_LENGTH), default=1.0)
    return max(ratio, 1.0) * file.frames / file.samplerate if file.frames < UNKNOWN_FRAMES else 0.0


def _credible(seconds: float, path: str) -> float:
    return seconds if seconds * LEAST_BYTES <= os.path.getsize(path) else 0.0


def _check_length(path: str | os.PathLike[str], seconds: float, most: float) -> None:
    if seconds > most:
        raise InputError(
            f"{os.fspath(path)}: {seconds:.0f} s of audio is too long for one utterance; give --timeline, or cut it"
        )
