"""Who speaks: the voice that a model normalises by."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

import torch
from speechbrain.inference.classifiers import EncoderClassifier
from tqdm import tqdm

from ser_plugins.audio.speech import TOGETHER
from ser_plugins.errors import InputError
from ser_plugins.inference.batches import pack
from ser_plugins.inference.files import find_files, header_seconds, read_groups
from ser_plugins.inference.utterances import GROUP_SECONDS

logger = logging.getLogger(__name__)


def normalises_by_speaker(model: EncoderClassifier) -> bool:
    """True where a model was trained on spectrograms normalised over all that a speaker said."""
    return getattr(model.mods.mean_var_norm, "axis", None) == "speaker"


@torch.no_grad()
def adapt(
    model: EncoderClassifier, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], jobs: int = 0
) -> None:
    """Adapt a model that normalises by speaker (S7) to one: what it hears from now on is of that voice.

    Parameters
    ----------
    model : speechbrain.inference.classifiers.EncoderClassifier
        As `ser_plugins.load` returns it; the voice is kept in ``model.mods.mean_var_norm.speaker``.
    paths : path or iterable of paths
        Recordings of the speaker alone, of many emotions, best those that are to be told: files, folders, patterns.
    jobs : int
        Processes that read files; 0 reads them in this one.

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
    groups = [[files[row] for row in group] for group in pack(header_seconds(files), GROUP_SECONDS, TOGETHER)]
    heard, errors = [], []
    for clips in tqdm(
        read_groups(groups, model.hparams.audio_normalizer, jobs), "hearing the speaker", len(groups), leave=False
    ):
        for clip in clips:
            if clip.speech is None:
                errors.append(clip.error)
            else:
                heard.append(model.mods.compute_features(torch.from_numpy(clip.speech)[None].to(model.device)))
    if not heard:
        raise InputError(f"none of {len(files)} recordings of the speaker could be used; the first: {errors[0]}")
    if errors:
        logger.warning("%d of %d recordings of the speaker could not be used: %s", len(errors), len(files), errors[0])
    model.mods.mean_var_norm.speaker = model.mods.mean_var_norm.measure(heard)
