"""Audio of any kind to mono 16 kHz speech with the silence taken out."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchaudio.functional import resample

from ser_plugins.errors import InputError

Segments = list[tuple[int, int]]
Samples = np.ndarray[Any, np.dtype[np.float32]]
VAD_RATE = 16000
SILERO_FRAME, SILERO_THRESHOLDS = 512, (0.5, 0.35)  # speech begins above the first and ends below the second
NEAR = 1e-3  # sixty times the most that a probability of Silero differed by beside others
TOGETHER = 32  # clips in which speech is found at once; more are no faster
WEBRTC_FRAME = 480  # 30 ms, the longest that it takes
MIN_SECONDS = 0.1
SILENCE = 1e-4  # peak: a lossy copy of silence is not exactly zero
AAC_SUFFIXES = (".m4a", ".aac", ".mp4")  # libsndfile does not read AAC
LFS_POINTER = b"version https://git-lfs"
HEARING = threading.RLock()  # Silero's one network keeps a state from frame to frame


@cache
def _silero() -> tuple[Callable[..., Any], Any]:
    threads = torch.get_num_threads()
    from silero_vad import get_speech_timestamps, load_silero_vad  # noqa: PLC0415

    torch.set_num_threads(threads)  # the import sets it to one, for the whole process
    return get_speech_timestamps, load_silero_vad()


def silero(signal: Tensor) -> Segments:
    """Find speech by Silero VAD, a small recurrent network, with its own defaults."""
    get_speech_timestamps, model = _silero()
    with HEARING:
        found = get_speech_timestamps(signal, model, sampling_rate=VAD_RATE)
    return [(segment["start"], segment["end"]) for segment in found]


@torch.no_grad()
def silero_together(signals: Sequence[Tensor]) -> list[Segments]:
    """Find what `silero` finds, frame by frame of all ``signals`` at once: of 32 clips in a quarter of the time.

    Give signals of like length: the short ones are padded. A sum beside others is rounded otherwise, so a signal with a
    probability near a threshold is heard once more alone.
    """
    from silero_vad.utils_vad import get_speech_timestamps_from_probs  # noqa: PLC0415

    if not signals:
        return []
    _, model = _silero()
    frames = torch.split(pad_sequence(list(signals), batch_first=True), SILERO_FRAME, dim=1)
    last = torch.nn.functional.pad(frames[-1], (0, SILERO_FRAME - frames[-1].shape[1]))
    with HEARING:
        model.reset_states()
        probabilities = torch.cat([model(frame, VAD_RATE) for frame in (*frames[:-1], last)], dim=1)
    found = []
    for signal, row in zip(signals, probabilities, strict=True):
        own = row[: -(-len(signal) // SILERO_FRAME)]
        if any((own - threshold).abs().min() < NEAR for threshold in SILERO_THRESHOLDS):
            found.append(silero(signal))
        else:
            told = get_speech_timestamps_from_probs(own.tolist(), VAD_RATE, audio_length_samples=len(signal))
            found.append([(segment["start"], segment["end"]) for segment in told])
    return found


def webrtc(signal: Tensor) -> Segments:
    """Find speech by the WebRTC VAD, a Gaussian mixture over six bands, frame by frame of 30 ms."""
    try:
        from webrtcvad import Vad  # noqa: PLC0415
    except ImportError as error:
        raise InputError("vad: webrtc needs webrtcvad; pip install webrtcvad-wheels, or choose vad: silero") from error
    vad = Vad(2)
    samples = (signal.clamp(-1, 1) * 32767).short().numpy()
    starts = range(0, len(samples) - WEBRTC_FRAME + 1, WEBRTC_FRAME)
    speech = [start for start in starts if vad.is_speech(samples[start : start + WEBRTC_FRAME].tobytes(), VAD_RATE)]
    return [(start, start + WEBRTC_FRAME) for start in speech]


VADS: dict[str, tuple[str, Callable[[Tensor], Segments]]] = {
    "silero": ("silero-vad", silero),
    "webrtc": ("webrtcvad-wheels", webrtc),
}


class SpeechNormalizer:
    """Downmix, resample, and join the segments that hold speech: an ``audio_normalizer`` of SpeechBrain.

    A clip in which no speech is found is kept whole. Silero VAD is the default: on RAVDESS it leaves half the silence
    that WebRTC's leaves, cuts somewhat more of the speech's ends, and recognition is as good after either
    (``benchmarks/results/vad.md`` and ``features.md``); unlike WebRTC's it is maintained.

    Parameters
    ----------
    sample_rate : int
        Samples per second of the result.
    vad : {"silero", "webrtc", "none"}
        Voice activity detector.

    Example
    -------
    >>> SpeechNormalizer(vad="none")(torch.rand(96000, 2) - 0.5, 48000).shape
    torch.Size([32000])
    """

    def __init__(self, sample_rate: int = 16000, vad: Literal["silero", "webrtc", "none"] = "silero") -> None:
        if vad not in (*VADS, "none"):
            raise ValueError(f"vad must be one of {', '.join([*VADS, 'none'])}, not {vad!r}")
        self.sample_rate = sample_rate
        self.vad = vad

    def __call__(self, signal: Tensor, sample_rate: int) -> Tensor:
        """Normalise a signal.

        Parameters
        ----------
        signal : torch.Tensor
            Samples [T], or [T, channels], of any floating type.
        sample_rate : int
            Its samples per second.

        Returns
        -------
        torch.Tensor
            float32 samples [T'], on the signal's device.

        Raises
        ------
        InputError
            If the signal is shorter than 0.1 s or holds NaN or infinity.
        """
        return self.remove_silence(self.convert(signal, sample_rate))

    def convert(self, signal: Tensor, sample_rate: int) -> Tensor:
        """Downmix and resample a signal, as the first half of the call."""
        mono = signal.float()
        if mono.dim() == 2:
            mono = mono.mean(1)
        if len(mono) < MIN_SECONDS * sample_rate:
            raise InputError(f"{len(mono) / sample_rate:.3f} s of audio is too short; give {MIN_SECONDS} s or more")
        if not mono.isfinite().all():
            raise InputError("audio holds NaN or infinity; write the file anew")
        converted: Tensor = resample(mono, sample_rate, self.sample_rate)
        return converted

    def remove_silence(self, signal: Tensor) -> Tensor:
        """Join the segments of ``signal`` [T] that hold speech; all of it where there is none."""
        return join(signal, self.find_speech([signal])[0])

    def find_speech(self, signals: Sequence[Tensor]) -> list[Segments]:
        """Find the segments of each of some ``signals`` [T] that hold speech; without a VAD, it is all of it."""
        if self.vad == "none":
            return [[(0, len(signal))] for signal in signals]
        heard = [resample(signal, self.sample_rate, VAD_RATE).cpu() for signal in signals]
        ratio = self.sample_rate / VAD_RATE
        together = self.vad == "silero" and len(heard) > 1
        found = silero_together(heard) if together else [VADS[self.vad][1](signal) for signal in heard]
        return [[(round(start * ratio), round(end * ratio)) for start, end in segments] for segments in found]

    def settings(self) -> dict[str, str | int]:
        """All that the result depends on besides the signal."""
        return {"sample_rate": self.sample_rate, "vad": "none" if self.vad == "none" else _release(VADS[self.vad][0])}


def is_silent(samples: Samples) -> bool:
    """True where there is nothing to be heard in samples [T] of one channel; no samples at all are another fault."""
    return len(samples) > 0 and bool(abs(samples).max() < SILENCE)


def join(signal: Tensor, segments: Segments) -> Tensor:
    """Join some segments of ``signal`` [T]; all of it where there is none."""
    return torch.cat([signal[start:end] for start, end in segments]) if segments else signal


def _release(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError as error:
        raise InputError(f"this vad needs {package}; pip install {package}, or choose another") from error


def load_audio(path: str | Path) -> tuple[Samples, int]:
    """Read a sound file: samples [T, channels] and their rate.

    Raises
    ------
    InputError
        If the file is missing, no sound, or a Git LFS pointer; the message names it.
    """
    with _unreadable_told(path):
        if Path(path).suffix.lower() in AAC_SUFFIXES:
            blocks = list(_aac_blocks(path))
            return np.concatenate([block for block, _ in blocks]), blocks[0][1]
        samples, rate = soundfile.read(os.fsencode(path), dtype="float32", always_2d=True)
    return samples, rate


def stream_audio(path: str | Path, seconds: float = 10.0) -> Iterator[tuple[Samples, int]]:
    """Read a sound file block by block, ``seconds`` at most: samples [T, channels] and their rate.

    Raises
    ------
    InputError
        As `load_audio`.
    """
    with _unreadable_told(path):
        if Path(path).suffix.lower() in AAC_SUFFIXES:
            yield from _aac_blocks(path)
            return
        with soundfile.SoundFile(os.fsencode(path)) as file:
            size = max(1, round(seconds * file.samplerate))
            for block in file.blocks(size, dtype="float32", always_2d=True):
                yield block, file.samplerate


@contextmanager
def _unreadable_told(path: str | Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, soundfile.LibsndfileError) as error:
        if isinstance(error, InputError):
            raise
        if not Path(path).is_file():
            raise InputError(f"{path} is missing; copy it again") from error
        if Path(path).read_bytes()[: len(LFS_POINTER)] == LFS_POINTER:
            raise InputError(f"{path} is a Git LFS pointer, not audio; run git lfs pull in its folder") from error
        reason = getattr(error, "error_string", str(error)).rstrip(".")
        raise InputError(f"{path} is not readable as audio ({reason}); copy it again, or convert it to WAV") from error


def _aac_blocks(path: str | Path) -> Iterator[tuple[Samples, int]]:
    try:
        import av  # noqa: PLC0415
    except ImportError as error:
        raise InputError(f"{path} needs PyAV to be read; pip install av") from error
    planar = av.AudioResampler(format="fltp")  # AAC is so; Apple Lossless, in files of the same name, is of integers
    empty = True
    try:
        with av.open(str(path)) as container:
            frames = container.decode(audio=0) if container.streams.audio else ()
            for frame in chain.from_iterable(map(planar.resample, chain(frames, [None]))):
                empty = False
                yield np.ascontiguousarray(frame.to_ndarray().T), frame.rate
    except av.FFmpegError as error:  # some are of no kind that others raise
        raise ValueError(getattr(error, "strerror", None) or str(error)) from error
    if empty:
        raise ValueError("no audio in it")


def convert_file(path: str | Path, normalizer: SpeechNormalizer) -> Tensor:
    """Read a sound file and convert it, silence and all; an error names the file."""
    samples, rate = load_audio(path)
    try:
        return normalizer.convert(torch.from_numpy(samples), rate)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def normalize_file(path: str | Path, normalizer: SpeechNormalizer) -> Tensor:
    """Read a sound file and normalise it; an error names the file."""
    return normalizer.remove_silence(convert_file(path, normalizer))


def normalize_files(
    paths: Sequence[str | Path], normalizer: SpeechNormalizer
) -> Iterator[tuple[int, Tensor | InputError]]:
    """Normalise sound files, those of like size together, which is faster than one by one and the same.

    Yields
    ------
    index : int
        Of the file in ``paths``; they come in another order.
    signal : torch.Tensor or InputError
        Its samples [T], or what is wrong with it.
    """
    order = sorted(range(len(paths)), key=lambda i: os.path.getsize(paths[i]) if os.path.isfile(paths[i]) else 0)
    for start in range(0, len(order), TOGETHER):
        signals: dict[int, Tensor] = {}
        for i in order[start : start + TOGETHER]:
            try:
                signals[i] = convert_file(paths[i], normalizer)
            except InputError as error:
                yield i, error
        found = normalizer.find_speech(list(signals.values()))
        for (i, signal), segments in zip(signals.items(), found, strict=True):
            yield i, join(signal, segments)
