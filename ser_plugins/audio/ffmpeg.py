"""Sound files by FFmpeg, through PyAV, packet by packet: one that is damaged costs no other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Any

import av
import numpy as np

Samples = np.ndarray[Any, np.dtype[np.float32]]

# Playlists, which FFmpeg reads too, would open other files.
CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,eac3,flac,matroska,mov,mp3,mpegts,nistsphere,ogg,tta,voc,w64,wav,wv,xwma"
)
ESTIMATED = {"aac", "ac3", "amr", "eac3", "mp3", "mpegts"}  # containers whose length is a guess by the bit rate
COUNTS = (b"Xing", b"Info", b"VBRI")  # but an MP3 that begins with one of these has it counted
ID3_HEADER = 10  # bytes
BEGINNING = 4096  # bytes, in which such a mark is
LAYER_3_KBITS = (
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # of MPEG-2 and 2.5
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # of MPEG-1
)


class FFmpegFile:
    """A sound file, open for one pass.

    The content decides the format, not the name. ID3 tags are skipped: they may be large, and of any encoding.

    Parameters
    ----------
    path : str
        The file.

    Attributes
    ----------
    announced : float
        Seconds that the file announces; 0 where it announces none.
    guessed : float
        The same, or an estimate by the bit rate.
    lost : float
        Seconds of the packets that could not be decoded so far.

    Raises
    ------
    OSError, ValueError
        If FFmpeg does not read the file, or there is no audio in it.
    """

    def __init__(self, path: str) -> None:
        with open(path, "rb") as file:
            start = _id3_size(file)
            file.seek(start)
            beginning = file.read(BEGINNING)
        with ExitStack() as opened, _as_value_error():
            content = _Content(opened.enter_context(open(path, "rb")), start)
            options = {"format_whitelist": CONTAINERS}
            self._container = opened.enter_context(av.open(content, metadata_errors="replace", options=options))
            if not self._container.streams.audio or self._container.streams.audio[0].codec_context is None:
                raise ValueError("no audio in it that can be decoded")
            self._opened = opened.pop_all()
        self._stream = self._container.streams.audio[0]
        self._is_mp3 = self._container.format.name == "mp3" and self._stream.codec_context.name.startswith("mp3")
        counted = self._container.format.name not in ESTIMATED or any(mark in beginning for mark in COUNTS)
        self.guessed = (self._container.duration or 0) / av.time_base
        self.announced = self.guessed if counted else 0.0
        self.lost = 0.0

    def __enter__(self) -> FFmpegFile:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self._opened.close()

    def blocks(self, rate: int | None = None) -> Iterator[tuple[Samples, int]]:
        """Yield samples [T, channels], float32, of a packet or so, and their rate: ``rate``, or that of the first."""
        layout = kind = resampler = None
        with _as_value_error():
            for frame in self._frames():
                if (frame.format.name, frame.layout.name, frame.sample_rate) != kind:  # some change on the way
                    yield from _convert(resampler, None)
                    kind = frame.format.name, frame.layout.name, frame.sample_rate
                    layout, rate = layout or frame.layout, rate or frame.sample_rate
                    resampler = av.AudioResampler("fltp", layout, rate)
                yield from _convert(resampler, frame)
            yield from _convert(resampler, None)

    def _frames(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.FFmpegError):
                return
            try:
                yield from packet.decode() if self._is_whole(packet) else ()
            except av.FFmpegError:
                self.lost += float(packet.duration * packet.time_base) if packet.duration else 0.0

    def _is_whole(self, packet: Any) -> bool:
        """Return False for the last frame of an MP3 that was cut off, which FFmpeg would decode to noise."""
        if not (self._is_mp3 and packet.size):
            return True
        _, sync, rates, _ = bytes(packet)[:4].ljust(4)
        version, index = sync >> 3 & 3, rates >> 4
        if version == 1 or not 0 < index < 15 or rates >> 2 & 3 == 3:
            return True  # no header at all: the decoder will say so
        rate = (44100, 48000, 32000)[rates >> 2 & 3] >> {3: 0, 2: 1, 0: 2}[version]
        kbits = LAYER_3_KBITS[version == 3][index - 1]
        return bool(packet.size >= (144 if version == 3 else 72) * kbits * 1000 // rate)


class _Content:
    """A file from some byte on, without a name."""

    def __init__(self, file: IO[bytes], start: int) -> None:
        self.file, self.start = file, start
        file.seek(start)

    def read(self, size: int) -> bytes:
        return self.file.read(size)

    def tell(self) -> int:
        return self.file.tell() - self.start

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset + (0 if whence else self.start), whence) - self.start


@contextmanager
def _as_value_error() -> Iterator[None]:
    """Raise errors of FFmpeg, some of which are of no built-in kind, as ValueError."""
    try:
        yield
    except av.FFmpegError as error:
        raise ValueError(error.strerror or str(error)) from error


def _id3_size(file: IO[bytes]) -> int:
    head = file.read(ID3_HEADER)
    if len(head) < ID3_HEADER or head[:3] != b"ID3":
        return 0
    return ID3_HEADER + sum((byte & 0x7F) << 7 * (3 - i) for i, byte in enumerate(head[6:]))


def _convert(resampler: Any, frame: Any) -> Iterator[tuple[Samples, int]]:
    """Yield what a resampler makes of a frame, or has kept for the end (None)."""
    if resampler is not None:
        for out in resampler.resample(frame):
            yield np.ascontiguousarray(out.to_ndarray().T), out.sample_rate
