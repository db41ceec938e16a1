"""Statistics of a speaker, measured on recordings, for models with speaker normalisation."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from tqdm import tqdm

from ser_plugins.audio.speaker import SpeakerStatistics
from ser_plugins.audio.speech import TOGETHER
from ser_plugins.errors import InputError
from ser_plugins.files import readable
from ser_plugins.inference.files import find_files, reason
from ser_plugins.inference.windows import Window, find_speech, slide
from ser_plugins.model_folder.forward import embed_features

if TYPE_CHECKING:
    from speechbrain.inference.classifiers import EncoderClassifier

logger = logging.getLogger(__name__)
Recordings: TypeAlias = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
SECONDS = 30.0  # of a recording, processed at a time


def normalizes_features(model: EncoderClassifier) -> bool:
    """Return whether the model normalises spectrograms by speaker (S7, S8)."""
    return getattr(model.mods.mean_var_norm, "speaker_normalization", "none").startswith("features")


def normalizes_embeddings(model: EncoderClassifier) -> bool:
    """Return whether the model subtracts from an embedding the speaker's mean embedding (S8)."""
    return getattr(model.mods.embedding_model, "speaker_normalization", "none").endswith("embeddings")


def normalizes_by_speaker(model: EncoderClassifier) -> bool:
    """Return whether the model was trained with speaker normalisation of any kind."""
    return normalizes_features(model) or normalizes_embeddings(model)


@torch.no_grad()
def speaker_statistics(model: EncoderClassifier, paths: Recordings) -> SpeakerStatistics:
    """Measure the statistics of a speaker that a model with speaker normalisation (S7, S8) needs.

    Parameters
    ----------
    model : speechbrain.inference.classifiers.EncoderClassifier
        As `ser_plugins.load` returns it; it stays as it is.
    paths : path or iterable of paths
        Recordings of this speaker alone: files, folders or patterns, of any length. They should hold many
        emotions; the recordings to predict themselves are best.

    Returns
    -------
    SpeakerStatistics
        The argument ``speaker`` of `predict`, `embed`, `timeline` and `ser_plugins.inference.onnx.export`.

    Raises
    ------
    InputError
        If the model has no speaker normalisation, or no recording can be used.

    Example
    -------
    >>> import ser_plugins
    >>> folder = getfixture("tiny_s8")  # a model folder and a folder of recordings
    >>> model = ser_plugins.load(folder / "model")
    >>> speaker = speaker_statistics(model, folder / "clips")
    >>> speaker.features.shape, speaker.embedding.shape
    (torch.Size([258]), torch.Size([12]))
    """
    if not normalizes_by_speaker(model):
        raise InputError("the model has no speaker normalisation; leave --speaker out")
    files = find_files([paths] if isinstance(paths, str | os.PathLike) else paths)
    errors: list[str] = []
    utterances = [
        feats
        for path in tqdm(files, "measuring the speaker", unit="file", leave=False)
        for feats in _features(model, path, errors)
    ]
    if len(errors) == len(files):
        raise InputError(f"none of {len(files)} recordings of the speaker could be used; the first: {errors[0]}")
    if errors:
        logger.warning("%d of %d recordings of the speaker could not be used: %s", len(errors), len(files), errors[0])
    return measure_speaker(model, utterances)


@torch.no_grad()
def measure_speaker(model: EncoderClassifier, utterances: list[Tensor]) -> SpeakerStatistics:
    """Measure the statistics of a speaker from features.

    Parameters
    ----------
    model : speechbrain.inference.classifiers.EncoderClassifier
        A model with speaker normalisation.
    utterances : list of torch.Tensor
        Features of the speaker's utterances, each [1, T', F].
    """
    features = SpeakerStatistics.measure_features(utterances) if normalizes_features(model) else None
    if not normalizes_embeddings(model):
        return SpeakerStatistics(features)
    partial = SpeakerStatistics(features)
    embeddings = [embed_features(model.mods, feats, speaker=partial) for feats in utterances]
    return SpeakerStatistics(features, torch.cat(embeddings).mean((0, 1)).cpu())


def statistics_or_warning(model: EncoderClassifier, paths: Recordings | None) -> SpeakerStatistics | None:
    """Measure the speaker if recordings are given; warn if the model needs some and there are none."""
    if paths is not None:
        return speaker_statistics(model, paths)
    if normalizes_by_speaker(model):
        logger.warning("the model normalises by speaker; give --speaker, recordings of the speaker alone")
    return None


def statistics_values(speaker: SpeakerStatistics | None) -> list[float] | None:
    """Return all values of the statistics, to tell those of one speaker from those of another."""
    if speaker is None:
        return None
    return [value for part in (speaker.features, speaker.embedding) if part is not None for value in part.tolist()]


def adapt(*_: Any, **__: Any) -> None:
    """Raise an `InputError`: statistics of a speaker are an argument now, see `speaker_statistics`."""
    raise InputError("adapt is gone; write predict(model, files, speaker=speaker_statistics(model, recordings))")


def speech_features(
    model: EncoderClassifier, path: str | os.PathLike[str], windows: Iterable[Window]
) -> Iterator[Tensor]:
    """Yield the features [1, T', F] of the speech in windows of a recording."""
    stream = iter(windows)
    while some := list(islice(stream, TOGETHER)):
        for speech in find_speech(model, path, some).values():
            yield model.mods.compute_features(speech[None].to(model.device))


def _features(model: EncoderClassifier, path: str, errors: list[str]) -> Iterator[Tensor]:
    """Yield the features [1, T', F] of the speech in a recording; add to ``errors`` why there are none."""
    empty = True
    try:
        for feats in speech_features(model, path, slide(path, SECONDS, SECONDS)):
            yield feats
            empty = False
        if empty:
            raise InputError("it has no speech")
    except Exception as error:  # from any decoder
        errors.append(readable(reason(path, error)))
