"""Load a model folder from its plain JSON and safetensors; no YAML is executed and nothing is unpickled."""

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

from ser_plugins.audio.speaker import SpeakerStatistics
from ser_plugins.audio.speech import is_silent, normalize_file
from ser_plugins.errors import InputError
from ser_plugins.model_folder.description import build
from ser_plugins.model_folder.forward import embed
from ser_plugins.model_folder.interface import LabelEncoder, UnitLength
from ser_plugins.model_folder.saving import CONFIG, SECTIONS, WEIGHTS, weighted_modules
from ser_plugins.model_folder.source import find_folder

REMEDY = "download or export the folder again"
Decision = tuple[Tensor, Tensor, Tensor, list[str]]


class UtteranceClassifier(EncoderClassifier):  # type: ignore[misc]
    """SpeechBrain's ``EncoderClassifier`` for local audio files, with clear errors and statistics of a speaker.

    Attributes
    ----------
    checksum : str
        SHA-256 of the model: of its configuration, labels and weights.
    """

    checksum: str

    def load_audio(self, path: str | Path) -> Tensor:
        """Read an audio file as the model was trained on it.

        Parameters
        ----------
        path : str or pathlib.Path
            Audio file of any sample rate and number of channels.

        Returns
        -------
        torch.Tensor
            Speech, samples [T] at the model's sample rate.

        Raises
        ------
        InputError
            If the file cannot be read, or is too short or silent.
        """
        speech = normalize_file(path, self.audio_normalizer)
        if is_silent(speech.numpy()):
            raise InputError(f"{path}: it is silent; record it again")
        return speech.to(self.device)

    def encode_batch(
        self,
        wavs: Tensor,
        wav_lens: Tensor | None = None,
        normalize: bool = False,
        speaker: SpeakerStatistics | None = None,
    ) -> Tensor:
        """Embed a padded batch.

        Parameters
        ----------
        wavs : torch.Tensor
            Waveforms [B, T], or one waveform [T].
        wav_lens : torch.Tensor, optional
            Relative lengths [B].
        normalize : bool
            Scale the embeddings to unit length.
        speaker : SpeakerStatistics, optional
            Statistics of the speaker of all waveforms, as `ser_plugins.inference.speaker_statistics` returns them.

        Returns
        -------
        torch.Tensor
            Embeddings [B, 1, E].

        Raises
        ------
        InputError
            If an embedding is not finite.
        """
        wavs = (wavs if wavs.dim() > 1 else wavs.unsqueeze(0)).to(self.device).float()
        lengths = None if wav_lens is None else wav_lens.to(self.device)
        embeddings = embed(self.mods, wavs, lengths, speaker)
        if not embeddings.isfinite().all():
            raise InputError("an embedding is not finite; check the waveforms for extreme values, and the model")
        return UnitLength()(embeddings) if normalize else embeddings

    def classify_batch(
        self, wavs: Tensor, wav_lens: Tensor | None = None, speaker: SpeakerStatistics | None = None
    ) -> Decision:
        """Classify a padded batch; parameters as in `encode_batch`.

        Returns
        -------
        tuple
            Log-probabilities [B, C], the highest of each utterance [B], its index [B] and its label (list of B).

        Raises
        ------
        InputError
            If the model has no classes, as a distilled encoder.
        """
        if not len(self.hparams.label_encoder):
            raise InputError("the model has no classes; use encode_batch, or train a classifier on it")
        scores = self.mods.classifier(self.encode_batch(wavs, wav_lens, speaker=speaker)).squeeze(1)
        best, index = scores.max(dim=-1)
        return scores, best, index, self.hparams.label_encoder.decode_torch(index)

    def encode_file(self, path: str | Path, speaker: SpeakerStatistics | None = None) -> Tensor:
        """Embed an audio file: [1, 1, E]; see `load_audio` and `encode_batch`."""
        return self.encode_batch(self.load_audio(path), speaker=speaker)

    def classify_file(self, path: str | Path, speaker: SpeakerStatistics | None = None) -> Decision:
        """Classify an audio file; see `load_audio` and `classify_batch`."""
        return self.classify_batch(self.load_audio(path), speaker=speaker)


def load(source: str | Path, revision: str | None = None, device: str | None = None) -> UtteranceClassifier:
    """Load a model folder without running any code from it.

    The model is the same as that of ``EncoderClassifier.from_hparams(source)``. Only ``config.json`` and
    ``model.safetensors`` are read, and only classes of a fixed list are built. The checksum in ``config.json`` detects
    weights that are damaged or of another model; it does not prove who wrote them.

    Parameters
    ----------
    source : str or pathlib.Path
        ``model/`` or ``encoder/`` folder of a run, or USER/NAME on the Hub, from which the two files are downloaded.
    revision : str, optional
        Branch, tag or commit on the Hub.
    device : str, optional
        "cpu", "cuda", "cuda:1" …; by default a GPU if there is one.

    Returns
    -------
    UtteranceClassifier
        A subclass of SpeechBrain's ``EncoderClassifier``.

    Raises
    ------
    InputError
        If a file is missing or altered, or names a class that is not in the list.

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
        weighted_modules(parts["embedding_model"], parts["classifier"]).load_state_dict(weights)
        hparams = {
            "audio_normalizer": parts.pop("audio_normalizer"),
            "label_encoder": LabelEncoder.from_labels(config["labels"]),
        }
        model = UtteranceClassifier(parts, hparams, {"device": device} if device else None)
    except InputError as error:
        raise InputError(f"{folder / CONFIG}: {error}") from error
    except Exception as error:  # from a class, about arguments that it does not accept
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{folder / CONFIG} and {WEIGHTS} do not make a model ({reason}); {REMEDY}") from error
    model.checksum = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    return model


def check_device(device: str | None) -> None:
    """Raise an `InputError` if there is no such device."""
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
    """Read a folder's ``config.json``: its modules, labels and checksum."""
    data = _read(path)
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON; {REMEDY}") from error
    if not isinstance(config, Mapping) or "modules" not in config:
        raise InputError(f"{path} describes no modules; load the folder by EncoderClassifier.from_hparams")
    return config


def _read_weights(path: Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read the weights after comparing their checksum with that of ``config.json``."""
    data = _read(path)  # read once: the checked bytes are the loaded ones
    if config.get("sha256") != {WEIGHTS: hashlib.sha256(data).hexdigest()}:
        raise InputError(f"{path} does not have the checksum in {CONFIG}; {REMEDY}")
    return dict(load_tensors(data))
