"""Load a model folder from its plain JSON and safetensors, without SpeechBrain, YAML or pickle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from safetensors.torch import load as load_tensors
from torch import nn

from ser_plugins.errors import InputError
from ser_plugins.model_folder.config import REMEDY, checksum_of, read_config, read_weights
from ser_plugins.model_folder.description import build
from ser_plugins.model_folder.layout import CONFIG, SECTIONS, WEIGHTS, weighted_modules
from ser_plugins.model_folder.source import find_folder


class Parts(NamedTuple):
    """What a model folder holds.

    Parameters
    ----------
    modules : dict
        ``compute_features``, ``mean_var_norm``, ``embedding_model`` and ``classifier``.
    audio_normalizer : ser_plugins.SpeechNormalizer
        What turns a recording into the speech that the model takes.
    labels : list of str
        Labels in the order of the classes.
    checksum : str
        SHA-256 of the configuration, labels and weights.
    """

    modules: dict[str, nn.Module]
    audio_normalizer: Any
    labels: list[str]
    checksum: str


class Labels:
    """Labels in the order of the classes, as SpeechBrain's label encoder has them."""

    def __init__(self, labels: list[str]) -> None:
        self.ind2lab = dict(enumerate(labels))

    def __len__(self) -> int:
        """Return the number of labels."""
        return len(self.ind2lab)


class PlainModel:
    """What the tables of files need of a model, without SpeechBrain, which takes a second to import.

    Parameters
    ----------
    parts : Parts
        As `read_parts` returns them.
    device : str, optional
        "cpu", "cuda", "cuda:1" …; by default a GPU if there is one.

    Parameters
    ----------
    mods, hparams, device, audio_normalizer, checksum
        As those of `ser_plugins.model_folder.loading.UtteranceClassifier`.
    """

    def __init__(self, parts: Parts, device: str | None = None) -> None:
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        self.device = device or str(accelerator or "cpu")
        self.mods = nn.ModuleDict(parts.modules).to(self.device).eval().requires_grad_(False)
        self.audio_normalizer = parts.audio_normalizer
        self.hparams = SimpleNamespace(audio_normalizer=parts.audio_normalizer, label_encoder=Labels(parts.labels))
        self.checksum = parts.checksum


def load_plain(source: str | Path, revision: str | None = None, device: str | None = None) -> PlainModel:
    """Load a model folder as `ser_plugins.load` does, without SpeechBrain.

    Example
    -------
    >>> model = load_plain(getfixture("tiny_s8") / "model")
    >>> sorted(model.mods), len(model.hparams.label_encoder)
    (['classifier', 'compute_features', 'embedding_model', 'mean_var_norm'], 3)
    """
    check_device(device)
    folder = find_folder(source, [CONFIG, WEIGHTS], revision)
    parts = read_parts(folder)
    with telling(folder):
        return PlainModel(parts, device)


def read_parts(folder: Path) -> Parts:
    """Read and build the modules of a model folder."""
    config = read_config(folder / CONFIG)
    data = read_weights(folder / WEIGHTS, config)
    with telling(folder):
        labels = list(config["labels"])
        weights = load_tensors(data)
        modules = {name: build(config["modules"][name]) for name in SECTIONS}
        arguments = config["modules"]["classifier"]["arguments"]
        classes = arguments.get("n_classes") if isinstance(arguments, dict) else None
        if labels and classes not in (None, len(labels)):
            raise InputError(f"{len(labels)} labels for {classes} classes; {REMEDY}")
        weighted_modules(modules["embedding_model"], modules["classifier"]).load_state_dict(weights)
        return Parts(modules, modules.pop("audio_normalizer"), labels, checksum_of(config))


@contextmanager
def telling(folder: Path) -> Iterator[None]:
    """Name a model folder in the error of a class that does not accept what the folder says."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{folder / CONFIG}: {error}") from error
    except Exception as error:  # from a class, about arguments that it does not accept
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{folder / CONFIG} and {WEIGHTS} do not make a model ({reason}); {REMEDY}") from error


def check_device(device: str | None) -> None:
    """Raise an `InputError` if there is no such device."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"there is no device {device}; give cpu, or none") from error
