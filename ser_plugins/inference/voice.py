"""Who speaks: the voice that a model normalises by."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeAlias

import torch
from speechbrain.inference.classifiers import EncoderClassifier
from torch import Tensor
from tqdm import tqdm

from ser_plugins.audio.speech import TOGETHER
from ser_plugins.errors import InputError
from ser_plugins.inference.files import find_files, readable, reason
from ser_plugins.inference.timeline import find_speech, slide

logger = logging.getLogger(__name__)
Recordings: TypeAlias = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
PLACES = ("mean_var_norm", "embedding_model")  # of model.mods, that a voice may be told to
SECONDS = 30.0  # of a recording that speech is looked for in at a time


def normalises_by_speaker(model: EncoderClassifier) -> bool:
    """True where a model was trained on spectrograms or embeddings normalised over all that a speaker said."""
    return getattr(model.mods.mean_var_norm, "axis", None) == "speaker" or _centred(model)


def told_voice(model: EncoderClassifier) -> list[float] | None:
    """Return the numbers of the voice that a model was told; None where it was told none."""
    voices = [getattr(model.mods[name], "speaker", None) for name in PLACES]
    numbers = [number for voice in voices if voice is not None for number in voice.tolist()]
    return numbers or None


def forget(model: EncoderClassifier) -> None:
    """Take back what `adapt` told a model: what it hears from now on may be of anybody."""
    for name in PLACES:
        model.mods[name].speaker = None


@torch.no_grad()
def adapt(model: EncoderClassifier, paths: Recordings) -> None:
    """Adapt a model that normalises by speaker (S7, S8) to one: what it hears from now on is of that voice.

    Parameters
    ----------
    model : speechbrain.inference.classifiers.EncoderClassifier
        As `ser_plugins.load` returns it; the voice is kept in ``model.mods.mean_var_norm.speaker`` and, for a centred
        encoder, ``model.mods.embedding_model.speaker``.
    paths : path or iterable of paths
        Recordings of the speaker alone, of any length and many emotions, best those that are to be told: files,
        folders, patterns.

    Raises
    ------
    InputError
        If the model does not normalise by speaker, or none of the recordings can be used.

    Example
    -------
    >>> import ser_plugins
    >>> model = ser_plugins.load("results/S7/demo/1/fold1/model")  # doctest: +SKIP
    >>> adapt(model, "recordings/ann")  # doctest: +SKIP
    >>> ser_plugins.inference.predict(model, "recordings/ann")  # doctest: +SKIP
    """
    if not normalises_by_speaker(model):
        raise InputError("the model does not normalise by speaker; leave --speaker out")
    files = find_files([paths] if isinstance(paths, str | os.PathLike) else paths)
    errors: list[str] = []
    heard: Iterable[Tensor] = (
        feats
        for path in tqdm(files, "hearing the speaker", unit="file", leave=False)
        for feats in _hear(model, path, errors)
    )
    spectrogram, embedding = measure_voice(model, heard)
    if len(errors) == len(files):
        raise InputError(f"none of {len(files)} recordings of the speaker could be used; the first: {errors[0]}")
    if errors:
        logger.warning("%d of %d recordings of the speaker could not be used: %s", len(errors), len(files), errors[0])
    model.mods.mean_var_norm.speaker, model.mods.embedding_model.speaker = spectrogram, embedding


@torch.no_grad()
def measure_voice(model: EncoderClassifier, heard: Iterable[Tensor]) -> tuple[Tensor | None, Tensor | None]:
    """Measure a voice by the features [1, T', F] of utterances: what each of ``PLACES`` is to be told."""
    norm, encoder = (model.mods[name] for name in PLACES)
    if _centred(model):
        heard = list(heard)  # they are gone through twice: the spectrograms' mean comes before the embeddings'
    voice = norm.measure(heard) if getattr(norm, "axis", None) == "speaker" else None
    if not _centred(model):
        return voice, None
    before = [getattr(module, "speaker", None) for module in (norm, encoder)]
    norm.speaker, encoder.speaker = voice, None
    try:
        embeddings = [encoder(norm(feats)) for feats in heard]
    finally:
        norm.speaker, encoder.speaker = before
    return voice, torch.cat(embeddings).mean((0, 1)) if embeddings else None


def adapt_or_warn(model: EncoderClassifier, paths: Recordings | None) -> None:
    """Adapt a model where recordings of the speaker are given; warn where it asks for them and there are none."""
    if paths is not None:
        adapt(model, paths)
    elif normalises_by_speaker(model):
        logger.warning("the model tells more where it knows who speaks: give --speaker, recordings of that voice alone")


def _centred(model: EncoderClassifier) -> bool:
    return bool(getattr(model.mods.embedding_model, "speaker_centred", False))


def _hear(model: EncoderClassifier, path: str, errors: list[str]) -> Iterator[Tensor]:
    """Yield the features of the speech in a recording, or add to the errors why there are none."""
    found = False
    try:
        stream = slide(path, SECONDS, SECONDS)
        while pieces := list(islice(stream, TOGETHER)):
            for speech in find_speech(model, path, pieces).values():
                yield model.mods.compute_features(speech[None].to(model.device))
                found = True
        if not found:
            raise InputError("no speech is heard in it")
    except Exception as error:  # whatever a decoder says of what is no sound
        errors.append(readable(reason(path, error)))
