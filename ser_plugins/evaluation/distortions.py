"""Distortions of recordings, such as noise, telephones and compression, to test models on.

Each is a function of the samples [T], their rate and a generator. It returns other samples and leaves its input as it
is.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import av
import numpy as np
from scipy.signal import butter, fftconvolve, resample_poly, sosfiltfilt

from ser_plugins.audio.reading import Samples

Generator: TypeAlias = np.random.Generator
Distortion: TypeAlias = Callable[[Samples, int, Generator], Samples]

TALKERS = 6  # of babble
BAND, TELEPHONE_RATE = (300, 3400), 8000  # Hz
OPUS: dict[str, Any] = {"codec": "libopus", "container": "ogg", "bit_rate": 12_000}
MP3: dict[str, Any] = {"codec": "libmp3lame", "container": "mp3", "bit_rate": 32_000}
REVERBERATION = 0.6  # seconds in which it decays by 60 dB
OVERDRIVE = 12.0  # dB by which the peak is clipped
ONSET, LEFT = -30.0, 0.5  # dB below the peak at which sound begins; seconds that are kept at least


def distortions(crowd: Sequence[Samples]) -> Mapping[str, Distortion]:
    """Return all distortions by their names.

    Parameters
    ----------
    crowd : sequence of numpy.ndarray
        Recordings of speech, at the rate of those to distort, that babble is made of.
    """
    ratios = (20, 10, 0)
    return {
        **{f"white noise, {ratio} dB": partial(white_noise, ratio=ratio) for ratio in ratios},
        **{f"babble, {ratio} dB": partial(babble, ratio=ratio, crowd=crowd) for ratio in ratios},
        "telephone": telephone,
        "Opus, 12 kbit/s": partial(coded, **OPUS),
        "MP3, 32 kbit/s": partial(coded, **MP3),
        "reverberation": reverberation,
        "clipping": clipping,
        "+20 dB": partial(level, gain=20),
        "−20 dB": partial(level, gain=-20),
        "speed +10 %": partial(speed, percent=110),
        "speed −10 %": partial(speed, percent=90),
        "first second missing": late_start,
    }


def white_noise(samples: Samples, rate: int, generator: Generator, ratio: float) -> Samples:
    """Add white noise, ``ratio`` dB below the mean power of the recording."""
    return _add(samples, generator.standard_normal(len(samples)), ratio)


def babble(
    samples: Samples, rate: int, generator: Generator, ratio: float, crowd: Sequence[Samples], talkers: int = TALKERS
) -> Samples:
    """Add several recordings of the crowd, each repeated from a random start, ``ratio`` dB below the recording."""
    chosen = generator.choice(len(crowd), min(talkers, len(crowd)), replace=False)
    voices = [np.roll(crowd[i], int(generator.integers(len(crowd[i])))) / _rms(crowd[i]) for i in chosen]
    return _add(samples, np.sum([np.resize(voice, len(samples)) for voice in voices], axis=0), ratio)


def telephone(samples: Samples, rate: int, generator: Generator) -> Samples:
    """Keep 300–3400 Hz, and transmit 8000 samples a second in 8 bits by the µ-law (ITU-T G.711)."""
    band = sosfiltfilt(butter(6, BAND, "bandpass", fs=rate, output="sos"), samples)
    narrow = resample_poly(band, TELEPHONE_RATE, rate).astype(np.float32)
    wide = resample_poly(coded(narrow, TELEPHONE_RATE, generator, "pcm_mulaw", "wav"), rate, TELEPHONE_RATE)
    return np.asarray(wide, np.float32)


def coded(
    samples: Samples, rate: int, generator: Generator, codec: str, container: str, bit_rate: int | None = None
) -> Samples:
    """Encode and decode by a codec of FFmpeg, which takes samples from −1 to 1; louder ones are clipped."""
    return decode(encode(samples, rate, codec, container, bit_rate), rate)


def encode(samples: Samples, rate: int, codec: str, container: str, bit_rate: int | None = None) -> bytes:
    """Encode a recording by a codec of FFmpeg."""
    content = io.BytesIO()
    with av.open(content, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout="mono")
        if bit_rate:
            stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(np.clip(samples, -1, 1)[None].astype(np.float32), "fltp", "mono")
        frame.rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)
    return content.getvalue()


def decode(content: bytes, rate: int) -> Samples:
    """Decode the content of a sound file at another rate."""
    with av.open(io.BytesIO(content)) as file:
        back = av.AudioResampler("fltp", "mono", rate)
        frames = [part for frame in file.decode(audio=0) for part in back.resample(frame)]
        return np.concatenate([part.to_ndarray()[0] for part in [*frames, *back.resample(None)]])


def reverberation(samples: Samples, rate: int, generator: Generator, seconds: float = REVERBERATION) -> Samples:
    """Convolve with noise that decays by 60 dB in ``seconds``, of the energy of the direct sound; the level stays."""
    time = np.arange(1, round(seconds * rate)) / rate
    echo = generator.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    wet = fftconvolve(samples, np.concatenate([[1.0], echo / np.sqrt(np.sum(echo**2))]))
    return np.asarray(wet * _rms(samples) / _rms(wet), np.float32)


def clipping(samples: Samples, rate: int, generator: Generator, overdrive: float = OVERDRIVE) -> Samples:
    """Cut off what exceeds a level that is ``overdrive`` dB below the peak."""
    ceiling = np.abs(samples).max() * 10 ** (-overdrive / 20)
    return np.clip(samples, -ceiling, ceiling)


def level(samples: Samples, rate: int, generator: Generator, gain: float) -> Samples:
    """Amplify by ``gain`` dB, without clipping."""
    return np.asarray(samples * 10 ** (gain / 20), np.float32)


def speed(samples: Samples, rate: int, generator: Generator, percent: int) -> Samples:
    """Play at ``percent`` of the speed, which changes the pitch as well."""
    return np.asarray(resample_poly(samples, 100, percent), np.float32)


def late_start(samples: Samples, rate: int, generator: Generator, seconds: float = 1.0) -> Samples:
    """Leave out all until ``seconds`` after the sound begins, but keep the last half second.

    The sound begins where it first comes within 30 dB of the peak: many recordings begin with silence.
    """
    loud = np.abs(samples) >= np.abs(samples).max() * 10 ** (ONSET / 20)
    start = int(loud.argmax()) + round(seconds * rate)
    return samples[max(0, min(start, len(samples) - round(LEFT * rate))) :]


def _add(samples: Samples, noise: np.ndarray[Any, Any], ratio: float) -> Samples:
    return np.asarray(samples + noise * (_rms(samples) / _rms(noise) * 10 ** (-ratio / 20)), np.float32)


def _rms(samples: np.ndarray[Any, Any]) -> float:
    return max(float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))), 1e-12)
