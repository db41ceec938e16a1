"""Audio of any kind to mono 16 kHz speech with the silence taken out."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ser_plugins.audio.checks import SILENT, check_signal, is_silent
from ser_plugins.audio.reading import SAMPLE_RATE, load_audio, stream_audio  # noqa: F401 — their old place
from ser_plugins.audio.resampling import resample
from ser_plugins.audio.silero import CONTEXT, FRAME, Segments, is_near_threshold, speech_segments
from ser_plugins.errors import InputError

SILERO_TOGETHER = 1024  # frames: more leave the cache of a processor
TOGETHER = 32  # clips in which speech is found at once; more are no faster
WEBRTC_FRAME = 480  # 30 ms, the longest that it takes
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
        found = get_speech_timestamps(signal, model, sampling_rate=SAMPLE_RATE)
    return [(segment["start"], segment["end"]) for segment in found]


@torch.no_grad()
def silero_together(signals: Sequence[Tensor]) -> list[Segments]:
    """Find what `silero` finds, of all ``signals`` and all frames at once: in a fraction of the time.

    Give signals of similar length, since short ones are padded. Sums are rounded otherwise than frame by frame. A
    signal with a probability near a threshold is therefore computed again by `silero`.
    """
    if not signals:
        return []
    found = []
    for signal, row in zip(signals, silero_probabilities(signals), strict=True):
        own = row[: -(-len(signal) // FRAME)]
        found.append(silero(signal) if is_near_threshold(own) else speech_segments(own.tolist(), len(signal)))
    return found


@torch.no_grad()
def silero_probabilities(signals: Sequence[Tensor]) -> Tensor:
    """Compute Silero's probability of speech in each frame of 512 samples, [B, frames].

    Silero's network is called frame by frame, for streams. Only its LSTM needs the frames in order: its convolutions
    take all of them at once here, and PyTorch's LSTM takes the sequence.
    """
    network, lstm = _silero()[1]._model, _silero_lstm()  # the package has no public name for the script's network
    padded = pad_sequence(list(signals), batch_first=True)
    missing = -padded.shape[1] % FRAME
    padded = torch.nn.functional.pad(padded, (CONTEXT, missing))
    frames = padded.unfold(1, FRAME + CONTEXT, FRAME)  # each begins with the end of the last
    parts = torch.split(frames.flatten(0, 1), SILERO_TOGETHER)
    features = torch.cat([network.encoder(network.run_extractors(part)) for part in parts])
    hidden, _ = lstm(features.view(*frames.shape[:2], -1))
    probabilities: Tensor = network.decoder.decoder(hidden.reshape(-1, hidden.shape[-1], 1))
    return probabilities.view(frames.shape[:2])


@cache
def _silero_lstm() -> torch.nn.LSTM:
    """Make the LSTM of Silero's cell."""
    cell = _silero()[1]._model.decoder.rnn
    lstm = torch.nn.LSTM(cell.weight_ih.shape[1], cell.weight_hh.shape[1], batch_first=True)
    lstm.load_state_dict({f"{name}_l0": value for name, value in cell.named_parameters()})
    return lstm


def webrtc(signal: Tensor) -> Segments:
    """Find speech by the WebRTC VAD, a Gaussian mixture over six bands, frame by frame of 30 ms."""
    try:
        from webrtcvad import Vad  # noqa: PLC0415
    except ImportError as error:
        raise InputError("vad: webrtc needs webrtcvad; pip install webrtcvad-wheels, or choose vad: silero") from error
    vad = Vad(2)
    samples = (signal.clamp(-1, 1) * 32767).short().numpy()
    starts = range(0, len(samples) - WEBRTC_FRAME + 1, WEBRTC_FRAME)
    speech = [start for start in starts if vad.is_speech(samples[start : start + WEBRTC_FRAME].tobytes(), SAMPLE_RATE)]
    return [(start, start + WEBRTC_FRAME) for start in speech]


VADS: dict[str, tuple[str, Callable[[Tensor], Segments]]] = {
    "silero": ("silero-vad", silero),
    "webrtc": ("webrtcvad-wheels", webrtc),
}


class SpeechNormalizer:
    """Downmix, resample to 16 kHz, and join the segments that hold speech: an ``audio_normalizer`` of SpeechBrain.

    A clip in which no speech is found is kept whole. Silero VAD is the default. On RAVDESS it leaves half the silence
    that WebRTC's detector leaves, and cuts somewhat more of the ends of speech (``benchmarks/results/vad.md``).
    Recognition is as good after either. Unlike WebRTC's, it is maintained.

    Parameters
    ----------
    vad : {"silero", "webrtc", "none"}
        Voice activity detector.

    Attributes
    ----------
    sample_rate : int
        Samples per second of the result, 16000.

    Example
    -------
    >>> SpeechNormalizer(vad="none")(torch.rand(96000, 2) - 0.5, 48000).shape
    torch.Size([32000])
    """

    sample_rate = SAMPLE_RATE

    def __init__(self, vad: Literal["silero", "webrtc", "none"] = "silero") -> None:
        if vad not in (*VADS, "none"):
            raise ValueError(f"vad must be one of {', '.join([*VADS, 'none'])}, not {vad!r}")
        self.vad = vad

    def __call__(self, signal: Tensor, sample_rate: int) -> Tensor:
        """Normalise a signal.

        Parameters
        ----------
        signal : torch.Tensor
            Samples [T], or [T, channels], of any floating type.
        sample_rate : int
            Its samples per second, 1 Hz to 768 kHz.

        Returns
        -------
        torch.Tensor
            float32 samples [T'], on the signal's device.

        Raises
        ------
        InputError
            If the signal is shorter than 0.1 s, silent, holds NaN, infinity or samples beyond 2³¹, or its rate is none.
        """
        mono = downmix(signal, sample_rate)
        if is_silent(mono):
            raise InputError(SILENT)
        return self.remove_silence(resample(mono, sample_rate))

    def convert(self, signal: Tensor, sample_rate: int) -> Tensor:
        """Downmix and resample a signal, as the first half of the call; it may be silent."""
        return resample(downmix(signal, sample_rate), sample_rate)

    def remove_silence(self, signal: Tensor) -> Tensor:
        """Join the segments of ``signal`` [T] that hold speech; all of it where there is none."""
        return join(signal, self.find_speech([signal])[0])

    def find_speech(self, signals: Sequence[Tensor]) -> list[Segments]:
        """Find the segments of each of some ``signals`` [T] that hold speech; without a VAD, it is all of it."""
        if self.vad == "none":
            return [[(0, len(signal))] for signal in signals]
        signals = [signal.cpu() for signal in signals]
        if self.vad == "silero":
            return silero_together(signals)
        return [VADS[self.vad][1](signal) for signal in signals]

    def settings(self) -> dict[str, str | int]:
        """All that the result depends on besides the signal."""
        return {"sample_rate": SAMPLE_RATE, "vad": "none" if self.vad == "none" else _release(VADS[self.vad][0])}


def downmix(signal: Tensor, sample_rate: int) -> Tensor:
    """Average the channels of a signal [T] or [T, channels]: float32 samples [T]; see `check_signal` for errors."""
    mono = signal.float()
    if mono.dim() == 2:
        mono = mono.mean(1)
    check_signal(len(mono), sample_rate, float(mono.abs().max()) if len(mono) else 0.0)
    return mono


def join(signal: Tensor, segments: Segments) -> Tensor:
    """Join some segments of ``signal`` [T]; all of it where there is none."""
    return torch.cat([signal[start:end] for start, end in segments]) if segments else signal


def _release(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError as error:
        raise InputError(f"this vad needs {package}; pip install {package}, or choose another") from error


def convert_file(path: str | Path, normalizer: SpeechNormalizer) -> Tensor:
    """Read a sound file and convert it, silence and all; an error names the file."""
    samples, rate = load_audio(path)
    with naming(path):
        return normalizer.convert(torch.from_numpy(samples), rate)


def normalize_file(path: str | Path, normalizer: SpeechNormalizer) -> Tensor:
    """Read a sound file and normalise it; an error names the file, and a warning of `read_audio` is logged."""
    samples, rate = load_audio(path)
    with naming(path):
        return normalizer(torch.from_numpy(samples), rate)


@contextmanager
def naming(path: object) -> Iterator[None]:
    """Put the name of a file before an `InputError`."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


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
