"""Windows of a recording of any length, read block by block, and the speech in them."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ser_plugins.audio.checks import MIN_SECONDS, is_silent
from ser_plugins.audio.reading import Samples, stream_audio
from ser_plugins.audio.speech import join, naming
from ser_plugins.errors import InputError
from ser_plugins.files import readable

if TYPE_CHECKING:
    from speechbrain.inference.classifiers import EncoderClassifier

logger = logging.getLogger(__name__)


class Window(NamedTuple):
    """A part of a recording: start and end in seconds, its samples [T] of one channel, and their sample rate."""

    start: float
    end: float
    samples: Samples
    rate: int


def check_windows(window: float, hop: float) -> None:
    """Raise an `InputError` unless the length of a window and the step to the next, in seconds, can be used."""
    if not MIN_SECONDS <= window <= 600 or not 0.01 <= hop <= 600:
        raise InputError(f"window of {window} s, hop of {hop} s: give a window of 0.1 to 600 s, a hop of 0.01 to 600 s")


def slide(path: str | os.PathLike[str], window: float, hop: float) -> Iterator[Window]:
    """Yield the windows of a recording, which is read block by block and downmixed.

    The last window ends with the recording; if it is shorter than 0.1 s, it is dropped.
    """
    buffer = np.empty(0, np.float32)
    offset = index = covered = rate = 0  # offset: sample of the recording at which the buffer starts
    stream = stream_audio(path)
    for block, rate in stream:
        buffer = np.concatenate([buffer, block.mean(1)])
        size = max(round(window * rate), math.ceil(MIN_SECONDS * rate))  # 0.1 s may be half a sample more
        while (start := round(index * hop * rate)) + size <= offset + len(buffer):
            yield _cut(buffer, offset, start, start + size, rate)
            covered = start + size
            index += 1
        passed = min(max(start - offset, 0), len(buffer))
        buffer, offset = buffer[passed:], offset + passed
    if stream.warning:
        logger.warning("%s: %s", readable(os.fspath(path)), stream.warning)
    end = offset + len(buffer)
    if not rate or (not index and end < MIN_SECONDS * rate):
        raise InputError(f"{path}: {end / max(rate, 1):.3f} s of audio is too short; give {MIN_SECONDS} s or more")
    start = round(index * hop * rate)
    if covered < end and end - start >= MIN_SECONDS * rate:
        yield _cut(buffer, offset, start, end, rate)


def _cut(buffer: Samples, offset: int, start: int, end: int, rate: int) -> Window:
    return Window(start / rate, end / rate, buffer[start - offset : end - offset].copy(), rate)


def spans(start: float, end: float, window: float, hop: float) -> list[tuple[float, float]]:
    """List the windows of a part of a recording in seconds; the last one ends with the part.

    Example
    -------
    >>> spans(10, 14.5, window=3, hop=1)
    [(10, 13), (11, 14), (12, 14.5)]
    """
    count = max(1, math.ceil((end - start - window) / hop - 1e-9) + 1)
    starts = [start + i * hop for i in range(count) if i * hop < end - start]
    return [(one, min(one + window, end)) for one in starts]


def cut(path: str | os.PathLike[str], parts: Sequence[tuple[float, float]]) -> Iterator[tuple[int, Window]]:
    """Yield parts of a recording, which is read block by block and downmixed, and the index of each.

    ``parts`` are starts and ends in seconds, sorted by start. A part ends with the recording; if it is then shorter
    than 0.1 s, it is dropped.
    """
    stream = stream_audio(path)
    blocks = iter(stream)
    buffer, offset, rate, ended = np.empty(0, np.float32), 0, 0, False
    for index, (start, end) in enumerate(parts):
        while not ended and (not rate or offset + len(buffer) < round(end * rate)):
            block, rate = next(blocks, (None, rate))
            ended = block is None
            if ended and stream.warning:
                logger.warning("%s: %s", readable(os.fspath(path)), stream.warning)
            if block is not None:
                buffer = np.concatenate([buffer, block.mean(1)])
            passed = min(max(round(start * rate) - offset, 0), len(buffer))
            buffer, offset = buffer[passed:], offset + passed
        first, last = round(start * rate), min(round(end * rate), offset + len(buffer))
        if last - first >= max(MIN_SECONDS * rate, 1):
            yield index, _cut(buffer, offset, first, last, rate)


def find_speech(
    model: EncoderClassifier, path: str | os.PathLike[str], windows: Sequence[Window]
) -> dict[int, torch.Tensor]:
    """Remove the silence of each window as of a file of its own; return samples [T] of the windows with speech."""
    normalizer = model.hparams.audio_normalizer
    with naming(path):
        signals = [normalizer.convert(torch.from_numpy(window.samples), window.rate) for window in windows]
    found = zip(signals, windows, normalizer.find_speech(signals), strict=True)
    return {
        row: join(signal, segments)
        for row, (signal, window, segments) in enumerate(found)
        if segments and not is_silent(window.samples)
    }
