"""A model folder without its YAML and its pickles: two files, plain JSON and safetensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from speechbrain.inference.classifiers import EncoderClassifier
from torch import Tensor

from ser_plugins.audio.speech import normalize_file
from ser_plugins.errors import InputError
from ser_plugins.model_folder.description import build
from ser_plugins.model_folder.saving import CONFIG, SECTIONS, WEIGHTS, label_encoder, trained
from ser_plugins.model_folder.source import find_folder

AGAIN = "fetch or export the folder again"


class UtteranceClassifier(EncoderClassifier):  # type: ignore[misc]
    """SpeechBrain's ``EncoderClassifier``, on files of this machine alone, whose errors say what to do.

    Attributes
    ----------
    checksum : str
        SHA-256 of all that the model was made of.
    """

    checksum: str

    def load_audio(self, path: str | Path) -> Tensor:
        """Read a sound file of any rate and channels; returns samples [T] as the network was trained on."""
        return normalize_file(path, self.audio_normalizer).to(self.device)

    def encode_file(self, path: str | Path) -> Tensor:
        """Embed a sound file; returns [1, 1, E]."""
        embedding: Tensor = self.encode_batch(self.load_audio(path).unsqueeze(0))
        return embedding


def load(source: str | Path, revision: str | None = None, device: str | None = None) -> UtteranceClassifier:
    """Load a model folder without running any code that it holds.

    The model is that of ``EncoderClassifier.from_hparams(source)``, made of ``config.json`` and ``model.safetensors``
    alone: no YAML is executed, nothing is unpickled, and no class is built but those of a fixed list. The checksum in
    ``config.json`` tells weights that were damaged or mixed up; who wrote the two it does not tell.

    Parameters
    ----------
    source : str or pathlib.Path
        ``model/`` or ``encoder/`` folder of a run; or USER/NAME on the Hub, of which these two files are fetched.
    revision : str, optional
        Branch, tag or commit on the Hub.
    device : str, optional
        "cpu", "cuda", "cuda:1" …; a GPU, where there is one, if not given.

    Returns
    -------
    UtteranceClassifier
        ``classify_file(path)`` and ``classify_batch(wavs [B, T], lengths [B])`` return log-probabilities [B, C], the
        best one [B], its index [B] and a list of labels; ``encode_file(path)`` and ``encode_batch(wavs, lengths)``
        embeddings [B, 1, E].

    Raises
    ------
    InputError
        If a file is missing, not what it was when the folder was written, or asks for an unknown class.

    Example
    -------
    >>> load(getfixture("tmp_path"))
    Traceback (most recent call last):
        ...
    ser_plugins.errors.InputError: ...config.json is missing; give the model/ or encoder/ folder of a run
    """
    check_device(device)
    folder = find_folder(source, [CONFIG, WEIGHTS], revision)
    config = read_config(folder / CONFIG)
    weights = _read_weights(folder / WEIGHTS, config)
    try:
        parts = {name: build(config["modules"][name]) for name in SECTIONS}
        trained(parts["embedding_model"], parts["classifier"]).load_state_dict(weights)
        hparams = {
            "audio_normalizer": parts.pop("audio_normalizer"),
            "label_encoder": label_encoder(config["labels"]),
        }
        model = UtteranceClassifier(parts, hparams, {"device": device} if device else None)
    except InputError as error:
        raise InputError(f"{folder / CONFIG}: {error}") from error
    except Exception as error:  # whatever a class says of arguments that it does not take
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{folder / CONFIG} and {WEIGHTS} make no model ({reason}); {AGAIN}") from error
    model.checksum = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()  # it holds the weights'
    return model


def check_device(device: str | None) -> None:
    """Stop where there is no such device."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"there is no device {device}; give cpu, or none") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} is missing; give the model/ or encoder/ folder of a run") from error


def read_config(path: Path) -> Mapping[str, Any]:
    """Read what a folder says of itself, in its ``config.json``."""
    data = _read(path)
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON; {AGAIN}") from error
    if not isinstance(config, Mapping) or "modules" not in config:
        raise InputError(f"{path} describes no modules; load the folder by EncoderClassifier.from_hparams")
    return config


def _read_weights(path: Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read the weights, if they are those that the folder was written with."""
    data = _read(path)  # once: what is checked is what is loaded
    if config.get("sha256") != {WEIGHTS: hashlib.sha256(data).hexdigest()}:
        raise InputError(f"{path} is not the file that {CONFIG} was written with; {AGAIN}")
    return dict(load_tensors(data))
