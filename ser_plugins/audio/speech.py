"""Audio of any kind to mono 16 kHz speech with the silence taken out."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
import torch
from torch import Tensor
from torchaudio.functional import resample

from ser_plugins.errors import InputError

Segments = list[tuple[int, int]]
VAD_RATE = 16000
WEBRTC_FRAME = 480  # 30 ms, the longest that it takes
MIN_SECONDS = 0.1
AAC_SUFFIXES = (".m4a", ".aac", ".mp4")  # libsndfile does not read AAC
LFS_POINTER = b"version https://git-lfs"


@cache
def _silero() -> tuple[Callable[..., Any], Any]:
    threads = torch.get_num_threads()
    from silero_vad import get_speech_timestamps, load_silero_vad  # noqa: PLC0415

    torch.set_num_threads(threads)  # the import sets it to one, for the whole process
    return get_speech_timestamps, load_silero_vad()


def silero(signal: Tensor) -> Segments:
    """Find speech by Silero VAD, a small recurrent network, with its own defaults."""
    get_speech_timestamps, model = _silero()
    found = get_speech_timestamps(signal, model, sampling_rate=VAD_RATE)
    return [(segment["start"], segment["end"]) for segment in found]


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
        mono = signal.float()
        if mono.dim() == 2:
            mono = mono.mean(1)
        if len(mono) < MIN_SECONDS * sample_rate:
            raise InputError(f"{len(mono) / sample_rate:.3f} s of audio is too short; give {MIN_SECONDS} s or more")
        if not mono.isfinite().all():
            raise InputError("audio holds NaN or infinity; write the file anew")
        return self.remove_silence(resample(mono, sample_rate, self.sample_rate))

    def remove_silence(self, signal: Tensor) -> Tensor:
        """Join the segments of ``signal`` [T] that hold speech; all of it where there is none."""
        if self.vad == "none":
            return signal
        heard = resample(signal, self.sample_rate, VAD_RATE).cpu()
        ratio = self.sample_rate / VAD_RATE
        segments = VADS[self.vad][1](heard)
        if not segments:
            return signal
        return torch.cat([signal[round(start * ratio) : round(end * ratio)] for start, end in segments])

    def settings(self) -> dict[str, str | int]:
        """All that the result depends on besides the signal."""
        return {"sample_rate": self.sample_rate, "vad": "none" if self.vad == "none" else _release(VADS[self.vad][0])}


def _release(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError as error:
        raise InputError(f"this vad needs {package}; pip install {package}, or choose another") from error


def load_audio(path: str | Path) -> tuple[np.ndarray[Any, np.dtype[np.float32]], int]:
    """Read a sound file: samples [T, channels] and their rate.

    Raises
    ------
    InputError
        If the file is missing, no sound, or a Git LFS pointer; the message names it.
    """
    try:
        if Path(path).suffix.lower() in AAC_SUFFIXES:
            return _load_aac(path)
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, ValueError, soundfile.LibsndfileError) as error:
        if not Path(path).is_file():
            raise InputError(f"{path} is missing; copy it again") from error
        if Path(path).read_bytes()[: len(LFS_POINTER)] == LFS_POINTER:
            raise InputError(f"{path} is a Git LFS pointer, not audio; run git lfs pull in its folder") from error
        reason = getattr(error, "error_string", str(error)).rstrip(".")
        raise InputError(f"{path} is not readable as audio ({reason}); copy it again, or convert it to WAV") from error
    return samples, rate


def _load_aac(path: str | Path) -> tuple[np.ndarray[Any, np.dtype[np.float32]], int]:
    try:
        import av  # noqa: PLC0415
    except ImportError as error:
        raise InputError(f"{path} needs PyAV to be read; pip install av") from error
    with av.open(str(path)) as container:
        if not container.streams.audio:
            raise ValueError("no audio in it")
        rate = container.streams.audio[0].rate
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]  # planar float32, [channels, samples]
    if not frames:
        raise ValueError("no audio in it")
    return np.ascontiguousarray(np.concatenate(frames, axis=1).T, dtype=np.float32), rate


def normalize_file(path: str | Path, normalizer: SpeechNormalizer) -> Tensor:
    """Read a sound file and normalise it; an error names the file."""
    samples, rate = load_audio(path)
    try:
        return normalizer(torch.from_numpy(samples), rate)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
