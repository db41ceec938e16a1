"""The built-in corpus: emotional speech made by rule, so that everything can be trained and tested without a download.

A source–filter synthesizer in the manner of Klatt (1980) and Klatt & Klatt (1990) speaks a few nonsense sentences.
Speakers differ in pitch, vocal-tract length and quality. Emotions differ as the literature on vocal expression
reports. Results on this corpus say nothing about real speech. The corpus, its models and its results are marked as
synthetic.

References
----------
- D. H. Klatt (1980). Software for a cascade/parallel formant synthesizer. JASA 67(3), 971–995.
- D. H. Klatt, L. C. Klatt (1990). Analysis, synthesis, and perception of voice quality variations among female and male
  talkers. JASA 87(2), 820–857.
- G. E. Peterson, H. L. Barney (1952). Control methods used in a study of the vowels. JASA 24(2), 175–184.
- R. Banse, K. R. Scherer (1996). Acoustic profiles in vocal emotion expression. J. Pers. Soc. Psychol. 70(3), 614–636.
- K. R. Scherer (2003). Vocal communication of emotion: a review of research paradigms. Speech Communication 40,
  227–256.
- P. N. Juslin, P. Laukka (2003). Communication of emotions in vocal expression and music performance: different
  channels, same code? Psychological Bulletin 129(5), 770–814.
"""

from __future__ import annotations

import hashlib
import io
import os
import uuid
from dataclasses import astuple, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile as sf
from numpy.typing import NDArray
from scipy.signal import resample_poly
from tqdm import tqdm

from ser_plugins.audio.reading import SAMPLE_RATE
from ser_plugins.corpora.corpus import Corpus
from ser_plugins.errors import InputError

Signal = NDArray[np.float64]

HOP = 160  # one set of control values each 10 ms, crossfaded over a window of twice that
N_FFT = 1024  # a window and 44 ms for the formants to ring out, so that filtering does not wrap around
OVERSAMPLING = 4  # the glottal pulse has an edge; made at 64 kHz, its aliases stay low
LEVEL = -32.0  # dB re full scale of a neutral utterance: the loudest anger still does not clip
ROOM = -72.0  # dB re full scale of the room: a recording is never digitally silent
MARGIN = 0.1  # seconds of room before and after the utterance
VERSION = 1  # raise it when the synthesis changes: clips made by older rules are then kept, and new ones made


@dataclass(frozen=True)
class Emotion:
    """How an emotion is spoken, relative to the speaker's own neutral voice.

    Attributes
    ----------
    pitch, range, final : float
        Mean pitch, span of its movements and movement at the end, in semitones.
    tempo : float
        Speech rate in octaves: 1 is twice as fast.
    loudness : float
        Intensity in dB.
    tilt : float
        Spectral slope above 500 Hz in dB an octave: more is brighter, a pressed voice.
    breath : float
        Aspiration noise in dB.
    jitter, shimmer : float
        Irregularity of the periods' lengths and of their amplitudes, in percent.
    tremor : float
        Depth of a 7 Hz trembling of the pitch, in semitones.
    openness : float
        Size of the vowel space in octaves about its centre: less is slack, more is precise articulation.
    smile : float
        Shift of all formants in octaves: spread lips shorten the vocal tract.
    """

    pitch: float = 0.0
    range: float = 3.0
    final: float = -1.5
    tempo: float = 0.0
    loudness: float = 0.0
    tilt: float = 0.0
    breath: float = 0.0
    jitter: float = 0.6
    shimmer: float = 4.0
    tremor: float = 0.0
    openness: float = 0.0
    smile: float = 0.0


# In the order of RAVDESS. Directions of the changes follow Juslin & Laukka (2003), Scherer (2003) and Banse & Scherer
# (1996); their sizes are chosen so that neighbours overlap.
EMOTIONS: dict[str, Emotion] = {
    "neutral": Emotion(),
    # Calm is a soft neutral: lower, slower, smoother. The two are meant to be confused.
    "calm": Emotion(pitch=-1.2, range=2.4, tempo=-0.13, loudness=-3.0, tilt=-1.2, breath=3.0, jitter=0.5, shimmer=3.0),
    # Happiness: high and variable pitch, fast, rather loud, bright; the smile is heard in the formants.
    "happy": Emotion(
        pitch=4.5, range=6.0, final=0.5, tempo=0.10, loudness=4.0, tilt=1.2, breath=-1.0, openness=0.10, smile=0.06
    ),
    # Sadness: low, flat and falling pitch, slow, soft, dull and breathy, slack articulation, some irregularity.
    "sad": Emotion(
        pitch=-0.8, range=1.6, final=-1.0, tempo=-0.27, loudness=-5.5, tilt=-2.2, breath=5.0, jitter=1.0, openness=-0.20
    ),
    # Hot anger: high and variable pitch falling steeply, fast, the loudest, much high-frequency energy, rough, precise.
    "angry": Emotion(
        pitch=4.0,
        range=5.5,
        final=-3.5,
        tempo=0.14,
        loudness=8.0,
        tilt=2.6,
        breath=-3.0,
        jitter=1.4,
        shimmer=7.0,
        openness=0.15,
    ),
    # Fear: very high pitch of little range, the fastest, trembling, irregular, breathy.
    "fearful": Emotion(
        pitch=5.5,
        range=3.2,
        final=0.5,
        tempo=0.20,
        loudness=2.0,
        tilt=0.4,
        breath=3.0,
        jitter=1.6,
        shimmer=6.0,
        tremor=0.6,
    ),
    # Disgust: low falling pitch, slow, creaky; little agreed upon, and badly recognised from voice.
    "disgust": Emotion(
        pitch=-1.0, range=4.0, final=-3.0, tempo=-0.17, loudness=0.5, tilt=0.8, jitter=1.8, shimmer=8.0, smile=-0.04
    ),
    # Surprise: high pitch of the widest range that rises at the end.
    "surprised": Emotion(pitch=5.5, range=7.0, final=5.0, tempo=0.06, loudness=3.5, tilt=0.8, openness=0.10),
}

# Standard deviation of each value from take to take: what makes the task neither hopeless nor trivial.
TAKE = Emotion(
    pitch=0.9,
    range=0.8,
    final=0.8,
    tempo=0.05,
    loudness=1.2,
    tilt=0.4,
    breath=1.5,
    jitter=0.25,
    shimmer=1.0,
    tremor=0.1,
    openness=0.05,
    smile=0.02,
)
LOWEST = Emotion(-9.0, 0.5, -9.0, -0.6, -12.0, -6.0, -9.0, 0.1, 0.5, 0.0, -0.6, -0.2)  # below which it is no voice


@dataclass(frozen=True)
class Phone:
    """A speech sound: three formants (Hz), length (s), amplitudes of voice and noise, centre of the noise (Hz)."""

    formants: tuple[float, float, float]
    seconds: float
    voice: float = 1.0
    noise: float = 0.0
    centre: float = 4000.0


# Vowels after Peterson & Barney's (1952) men; consonants after Klatt (1980), simplified.
PHONES: dict[str, Phone] = {
    "a": Phone((730, 1090, 2440), 0.16),
    "e": Phone((530, 1840, 2480), 0.15),
    "i": Phone((270, 2290, 3010), 0.14),
    "o": Phone((570, 840, 2410), 0.16),
    "u": Phone((300, 870, 2240), 0.14),
    "m": Phone((280, 900, 2200), 0.07, voice=0.35),
    "n": Phone((280, 1700, 2600), 0.06, voice=0.35),
    "l": Phone((330, 1050, 2880), 0.06, voice=0.6),
    "w": Phone((290, 610, 2150), 0.06, voice=0.6),
    "s": Phone((320, 1390, 2530), 0.10, voice=0.0, noise=0.20, centre=6300),
    "S": Phone((300, 1840, 2750), 0.10, voice=0.0, noise=0.25, centre=3300),
    "f": Phone((340, 1100, 2080), 0.09, voice=0.0, noise=0.08, centre=5000),
    ".": Phone((400, 1400, 2500), 0.05, voice=0.0),  # the closure of a plosive
    "p": Phone((400, 1100, 2150), 0.02, voice=0.0, noise=0.25, centre=1000),
    "t": Phone((400, 1600, 2600), 0.02, voice=0.0, noise=0.40, centre=4500),
    "k": Phone((300, 1990, 2850), 0.03, voice=0.0, noise=0.35, centre=2200),
}
VOWELS = "aeiou"
CENTRE_OF_VOWELS = np.array([500.0, 1500.0, 2500.0])  # schwa: the formants of a uniform tube 17.5 cm long
HIGHER_FORMANTS = np.array([3500.0, 4500.0, 5500.0])
BANDWIDTHS = np.array([70.0, 90.0, 140.0, 220.0, 300.0, 400.0])

# Four syllables each, the same for all speakers and all emotions: what is said tells nothing of how.
SENTENCES = ("ma.tisule", "ne.kafowi", "sa.pimelo", "wi.tonaSe", "lu.kisema", "fo.paniwe")


@dataclass(frozen=True)
class Voice:
    """A speaker.

    Attributes
    ----------
    f0 : float
        Mean pitch of neutral speech in Hz.
    tract : tuple of float
        Factor on each of the six formants: vocal-tract length, and what is a speaker's own.
    open_quotient : float
        Share of a period in which the glottis is open.
    tilt, breath, tempo, gain : float
        Habits, as in `Emotion`, and the distance from the microphone (dB).
    expressiveness : float
        Factor on all that an emotion changes.
    """

    f0: float
    tract: tuple[float, ...]
    open_quotient: float
    tilt: float
    breath: float
    tempo: float
    gain: float
    expressiveness: float

    @classmethod
    def of(cls, seed: int, speaker: int) -> Voice:
        """Return the voice of a speaker (from 1). As in RAVDESS, odd numbers are male and even ones female."""
        rng = _generator(seed, speaker, 0, 0)
        female = speaker % 2 == 0
        length = (1.16 if female else 1.0) * 2 ** rng.normal(0, 0.05)
        return cls(
            f0=(205.0 if female else 118.0) * 2 ** rng.normal(0, 0.16),
            tract=tuple(length * 2 ** rng.normal(0, 0.05, len(BANDWIDTHS))),
            open_quotient=rng.uniform(0.5, 0.7),
            tilt=rng.normal(-1.0 if female else 0.0, 1.0),
            breath=rng.normal(3.0 if female else 0.0, 2.0),
            tempo=rng.normal(0, 0.06),
            gain=rng.normal(0, 1.0),
            expressiveness=rng.uniform(0.8, 1.25),
        )


def _generator(*entropy: int) -> np.random.Generator:
    """Return the generator of one voice or one clip: what is drawn never depends on what was drawn before."""
    return np.random.default_rng(np.random.SeedSequence(entropy))


def perform(emotion: Emotion, expressiveness: float, rng: np.random.Generator) -> Emotion:
    """Return one take of an emotion: scaled by the speaker's expressiveness and varied at random."""
    neutral, full = np.array(astuple(Emotion())), np.array(astuple(emotion))
    strength = expressiveness * 2 ** rng.normal(0, 0.15)  # some takes are lukewarm, some overdone
    take = neutral + strength * (full - neutral) + rng.normal(size=full.size) * astuple(TAKE)
    return Emotion(*np.maximum(take, astuple(LOWEST)).tolist())


def _smooth(track: Signal, width: int) -> Signal:
    """Blur a track ``[T, ...]`` over ``width`` frames: articulators move gradually."""
    kernel = np.hanning(width + 2)[1:-1]
    padded = np.pad(track, [(width // 2, (width - 1) // 2)] + [(0, 0)] * (track.ndim - 1), mode="edge")
    return np.apply_along_axis(np.convolve, 0, padded, kernel / kernel.sum(), "valid")


@dataclass(frozen=True)
class Score:
    """What is played, frame by frame: f0, formants ``[T, 6]``, amplitudes of voice and noise, its centre."""

    f0: Signal
    formants: Signal
    voice: Signal
    noise: Signal
    centre: Signal


def compose(sentence: str, voice: Voice, take: Emotion, rng: np.random.Generator) -> Score:
    """Lay a sentence out in time, as one voice speaks it in one take of an emotion."""
    phones = [PHONES[symbol] for symbol in sentence]
    vowel = np.array([symbol in VOWELS for symbol in sentence])
    stress = np.where(vowel, rng.uniform(0.0, 1.0, len(phones)), 0.0)
    stretch = 2 ** (rng.normal(0, 0.12, len(phones)) - voice.tempo - take.tempo)
    stretch[-1] *= 1.5  # the end of a phrase is drawn out
    seconds = np.array([phone.seconds for phone in phones]) * (1 + 0.25 * stress) * stretch
    edge = round(MARGIN * SAMPLE_RATE / HOP)
    frames = np.maximum(np.round(seconds * SAMPLE_RATE / HOP).astype(int), 1)
    frames[0], frames[-1] = frames[0] + edge, frames[-1] + edge

    def track(values: list[float] | Signal, width: int) -> Signal:
        return _smooth(np.repeat(np.asarray(values, dtype=float), frames, axis=0), width)

    inside = np.ones(frames.sum())
    inside[:edge] = inside[-edge:] = 0.0
    time = np.linspace(0, 1, frames.sum())
    accent = track(stress, 15)
    final = np.clip((time - 0.65) / 0.25, 0, 1) ** 2 * take.final
    tremor = take.tremor * np.sin(2 * np.pi * (7.0 * np.arange(time.size) * HOP / SAMPLE_RATE + rng.uniform()))
    semitones = take.pitch + take.range * (0.5 - time + 0.9 * accent) + final + tremor

    space = CENTRE_OF_VOWELS + 2**take.openness * (np.array([phone.formants for phone in phones]) - CENTRE_OF_VOWELS)
    formants = np.hstack([np.maximum(space, 200.0), np.tile(HIGHER_FORMANTS, (len(phones), 1))])
    return Score(
        f0=voice.f0 * 2 ** (semitones / 12),
        formants=track(formants, 7) * voice.tract * 2**take.smile,
        voice=_smooth(track([phone.voice for phone in phones], 3) * inside, 5) * 10 ** ((4 * accent - 3 * time) / 20),
        noise=_smooth(track([phone.noise for phone in phones], 2) * inside, 2),
        centre=track([phone.centre for phone in phones], 3),
    )


def glottis(f0: Signal, open_quotient: float, take: Emotion, rng: np.random.Generator) -> tuple[Signal, Signal]:
    """Return the voice source, the derivative of KLGLOTT88's flow (Klatt & Klatt 1990), and how open the glottis is."""
    rate = SAMPLE_RATE * OVERSAMPLING
    at = np.arange(f0.size * HOP * OVERSAMPLING) / (HOP * OVERSAMPLING)
    pitch = np.interp(at, np.arange(f0.size), f0)
    period = (np.cumsum(pitch) / rate).astype(int)
    jitter, shimmer = rng.normal(size=(2, period[-1] + 2)) * [[take.jitter / 100], [take.shimmer / 100]]
    phase = np.cumsum(pitch * (1 + jitter[period])) / rate
    amplitude = 1 + shimmer[np.minimum(phase.astype(int), period[-1])]
    opened = (phase % 1.0) / open_quotient
    pulse = np.where(opened < 1, 2 * opened - 3 * opened**2, 0.0) * amplitude
    source: Signal = resample_poly(pulse, 1, OVERSAMPLING)
    return source, (opened < 1)[::OVERSAMPLING].astype(float)


def _resonators(frequencies: Signal, bandwidths: Signal) -> NDArray[np.complex128]:
    """Return the response ``[T, N_FFT // 2 + 1]`` of resonators ``[T, N]`` in cascade (Klatt 1980)."""
    delay = np.exp(-2j * np.pi * np.arange(N_FFT // 2 + 1) / N_FFT)
    radius = np.exp(-np.pi * bandwidths / SAMPLE_RATE)
    response = np.ones((len(frequencies), delay.size), dtype=complex)
    for r, frequency in zip(radius, frequencies.T, strict=True):
        b = 2 * r * np.cos(2 * np.pi * frequency[:, None] / SAMPLE_RATE)
        response *= (1 - b + r**2) / (1 - b * delay + r**2 * delay**2)
    return response


def _filtered(signal: Signal, response: NDArray[np.complex128]) -> Signal:
    """Filter a signal ``[T * HOP]`` by a response ``[T, F]`` that changes from frame to frame, by overlap-add."""
    n_frames = len(response)
    padded = np.concatenate([np.zeros(HOP), signal])[: (n_frames + 1) * HOP]
    window = 0.5 - 0.5 * np.cos(np.pi * np.arange(2 * HOP) / HOP)  # periodic: two of them, a hop apart, sum to 1
    pieces = np.lib.stride_tricks.sliding_window_view(padded, 2 * HOP)[::HOP] * window
    rung = np.fft.irfft(np.fft.rfft(pieces, N_FFT) * response, N_FFT)
    output = np.zeros((n_frames + 1) * HOP + N_FFT)
    for index, piece in enumerate(rung):
        output[index * HOP : index * HOP + N_FFT] += piece
    return output[HOP : HOP + signal.size]


def render(score: Score, voice: Voice, take: Emotion, rng: np.random.Generator) -> Signal:
    """Play a score: glottis and breath through the vocal tract, frication past it, at the loudness of the take."""
    size = score.f0.size * HOP

    def per_sample(track: Signal) -> Signal:
        return np.interp(np.arange(size) / HOP, np.arange(track.size), track)

    pulses, is_open = glottis(score.f0, voice.open_quotient, take, rng)
    breath = 0.03 * 10 ** ((voice.breath + take.breath) / 20) * (0.4 + 0.6 * is_open)
    source = (pulses + breath * rng.normal(size=size)) * per_sample(score.voice)
    hertz = np.arange(N_FFT // 2 + 1) * SAMPLE_RATE / N_FFT
    slope = np.maximum(hertz / 500, 1.0) ** ((voice.tilt + take.tilt) / (20 * np.log10(2)))
    voiced = _filtered(source, _resonators(score.formants, BANDWIDTHS) * slope)
    band = np.exp(-0.5 * (np.log2(np.maximum(hertz, 1.0) / score.centre[:, None]) / 0.35) ** 2)
    frication = _filtered(rng.normal(size=size) * per_sample(score.noise), band.astype(complex))
    voiced *= 10 ** ((LEVEL + voice.gain + take.loudness) / 20) / np.sqrt(np.mean(voiced**2))
    frication *= 10 ** ((LEVEL + voice.gain + 0.5 * take.loudness) / 20)
    return voiced + frication + 10 ** (ROOM / 20) * rng.normal(size=size)


def speak(seed: int, speaker: int, emotion: str, take: int) -> Signal:
    """Return one utterance at 16 kHz; it depends on the four arguments alone.

    Parameters
    ----------
    seed : int
        Seed of the corpus.
    speaker : int
        Number of the speaker, from 1.
    emotion : str
        A name in `EMOTIONS`.
    take : int
        Number of the take, from 1; it also chooses the sentence.

    Examples
    --------
    >>> wav = speak(seed=0, speaker=1, emotion="angry", take=1)
    >>> bool(0.8 < len(wav) / SAMPLE_RATE < 1.8 and abs(wav).max() < 1)
    True
    """
    # The 1 keeps clips apart from speakers: trailing zeros do not change a SeedSequence.
    rng = _generator(seed, speaker, 1 + list(EMOTIONS).index(emotion), take)
    voice = Voice.of(seed, speaker)
    performed = perform(EMOTIONS[emotion], voice.expressiveness, rng)
    score = compose(SENTENCES[(take - 1) % len(SENTENCES)], voice, performed, rng)
    return np.clip(render(score, voice, performed, rng), -1.0, 1.0 - 2**-15)


class Synthetic:
    """The built-in corpus: synthetic emotional speech, made on first use and kept.

    Parameters
    ----------
    data_folder : str, optional
        Where the clips are kept (default: ``cache/synthetic``); each seed and version of the rules has its own folder.
    n_speakers : int
        Number of speakers.
    n_takes : int
        Number of utterances of each speaker in each emotion.
    seed : int
        Seed of the speakers and of the takes.

    Examples
    --------
    >>> import tempfile
    >>> corpus = Synthetic(tempfile.mkdtemp(), n_speakers=2, n_takes=1).read()
    >>> len(corpus.table), corpus.speakers, corpus.synthetic
    (16, ['speaker01', 'speaker02'], True)
    """

    def __init__(self, data_folder: str | None = None, n_speakers: int = 20, n_takes: int = 3, seed: int = 0) -> None:
        if n_speakers < 1 or n_takes < 1 or seed < 0:
            raise InputError("corpus synthetic: n_speakers and n_takes must be 1 or more, seed 0 or more")
        self.n_speakers, self.n_takes, self.seed = n_speakers, n_takes, seed
        rules = repr((VERSION, seed, EMOTIONS, TAKE, PHONES, SENTENCES))
        self.folder = Path(data_folder or "cache/synthetic") / hashlib.sha256(rules.encode()).hexdigest()[:8]

    def read(self) -> Corpus:
        """Make the clips that are not there yet, and return the corpus."""
        speakers, takes = range(1, self.n_speakers + 1), range(1, self.n_takes + 1)
        clips = [(s, e, t, self._path(s, e, t)) for s, e, t in product(speakers, EMOTIONS, takes)]
        missing = [clip for clip in clips if not _complete(clip[3])]
        for speaker, emotion, take, path in tqdm(missing, desc="making the synthetic corpus", disable=not missing):
            _write(path, speak(self.seed, speaker, emotion, take))
        # Every table of a run shows the ids: they say what the audio is.
        rows = [
            (f"synthetic-{path.stem}", str(path), emotion, f"speaker{speaker:02d}", "")
            for speaker, emotion, _, path in clips
        ]
        table = pd.DataFrame(rows, columns=["id", "path", "emotion", "speaker", "fault"])
        return Corpus("synthetic", tuple(EMOTIONS), table, licence="Apache-2.0 (synthetic)", synthetic=True)

    def _path(self, speaker: int, emotion: str, take: int) -> Path:
        return self.folder / f"speaker{speaker:02d}" / f"speaker{speaker:02d}-{emotion}-{take}.wav"


def _complete(path: Path) -> bool:
    """Tell whether a WAV file is as long as its RIFF header says."""
    try:
        with path.open("rb") as file:
            header = file.read(8)
        return header[:4] == b"RIFF" and path.stat().st_size == int.from_bytes(header[4:], "little") + 8
    except OSError:  # missing, or out of reach: writing it will tell which
        return False


def _write(path: Path, wav: Signal) -> None:
    """Write a WAV file whole or not at all, whoever else writes the same one."""
    content = io.BytesIO()
    sf.write(content, wav, SAMPLE_RATE, subtype="PCM_16", format="WAV")
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content.getvalue())
        os.replace(part, path)
    except OSError as error:
        raise InputError(
            f"corpus synthetic: cannot write {path} ({error.strerror}); give another --data_folder"
        ) from error
