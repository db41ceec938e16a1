"""Modules as plain JSON: the names of known classes and their arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from torch import nn

from ser_plugins.audio.fbank import KaldiFbank, MeanNorm
from ser_plugins.audio.handmade import CepstralFeatures, SpectralFeatures
from ser_plugins.audio.modulation import ModulationFeatures
from ser_plugins.audio.spectrogram import MelSpectrogram, Spectrogram, SpectrogramNorm
from ser_plugins.audio.speech import SpeechNormalizer
from ser_plugins.errors import InputError
from ser_plugins.models.bagged_svm import BaggedSVMClassifier
from ser_plugins.models.encoder import MarginClassifier, SoftmaxClassifier
from ser_plugins.models.fitted import (
    ForestClassifier,
    NeighbourClassifier,
    PerceptronClassifier,
    SelectedClassifier,
)
from ser_plugins.models.logistic import LogisticClassifier
from ser_plugins.models.pairwise import PairwiseClassifier
from ser_plugins.models.ssl import SSLBackbone
from ser_plugins.models.svm import SVMClassifier
from ser_plugins.registry import MODELS, POOLINGS

AUDIO = (
    *(SpeechNormalizer, Spectrogram, MelSpectrogram, SpectrogramNorm, KaldiFbank, MeanNorm),
    *(CepstralFeatures, ModulationFeatures, SpectralFeatures),
)
CLASSIFIERS = (
    *(SoftmaxClassifier, MarginClassifier, PairwiseClassifier, LogisticClassifier, SVMClassifier, BaggedSVMClassifier),
    *(NeighbourClassifier, ForestClassifier, PerceptronClassifier, SelectedClassifier),
)
# Defaults that changed: of folders that were written without the argument, and of today's classes.
CHANGED: dict[str, dict[str, tuple[Any, Any]]] = {
    "ser_plugins.Spectrogram": {"log": (False, True)},
    "ser_plugins.MelSpectrogram": {"log": (False, True)},
    "ser_plugins.SEResNet34": {"channels": ([16, 32, 64, 128], [32, 48, 80, 128]), "pooled": (False, True)},
}
KEYS = {"class", "arguments"}


def described_backbone(source: Mapping[str, Any], freeze: bool = True, layer: int | None = None) -> SSLBackbone:
    """Build a network of transformers from its configuration; weights elsewhere would be downloaded and unpickled."""
    if not isinstance(source, Mapping):
        raise InputError(f"SSLBackbone names weights outside of the folder, {source!r}; give its configuration")
    return SSLBackbone(source, freeze, layer)


def _of_speechbrain(module: str, name: str) -> Callable[..., Any]:
    """Return a constructor that imports SpeechBrain at its first call: most folders name no class of it."""

    def construct(*arguments: Any, **named: Any) -> Any:
        return getattr(import_module(module), name)(*arguments, **named)

    return construct


SPEECHBRAIN = (
    ("speechbrain.nnet.containers", "LengthsCapableSequential"),
    ("speechbrain.nnet.linear", "Linear"),
    ("speechbrain.nnet.normalization", "BatchNorm1d"),
)
CLASSES: dict[str, Callable[..., Any]] = {
    **{f"ser_plugins.{one.__name__}": one for one in (*AUDIO, *CLASSIFIERS)},
    **{f"ser_plugins.{name}": one for name, one in {**MODELS, **POOLINGS}.items()},
    "ser_plugins.SSLBackbone": described_backbone,
    **{f"{module}.{name}": _of_speechbrain(module, name) for module, name in SPEECHBRAIN},
    "torch.nn.Identity": nn.Identity,
}


def describe(node: Any) -> Any:
    r"""Turn a node of a resolved YAML into plain JSON.

    Parameters
    ----------
    node : object
        As ruamel reads it: ``!new:`` of a known class, a number, a string, or a list or mapping of these.

    Returns
    -------
    object
        Plain JSON; an object is ``{"class": name, "arguments": mapping or list}``.

    Raises
    ------
    InputError
        If the node holds anything else; the message names it.

    Example
    -------
    >>> from ruamel.yaml import YAML
    >>> describe(YAML().load("!new:ser_plugins.SVMClassifier\nn_classes: !apply:builtins.len [[happy, sad]]"))
    {'class': 'ser_plugins.SVMClassifier', 'arguments': {'n_classes': 2}}
    """
    tag = getattr(getattr(node, "tag", None), "value", None)
    if tag == "!apply:builtins.len":  # the number of labels in recipes
        return len(node[0])
    if tag is None:
        return _describe_plain(node)
    if not tag.startswith("!new:"):
        raise InputError(f"{tag} cannot be written as plain JSON; give its value")
    name = tag.removeprefix("!new:")
    _check_known(name)
    arguments = _describe_plain(node) if isinstance(node, (Mapping, list)) else {}
    if isinstance(arguments, dict):
        arguments = {**{key: now for key, (_, now) in CHANGED.get(name, {}).items()}, **arguments}
    return {"class": name, "arguments": arguments}


def _describe_plain(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: describe(value) for key, value in node.items()}
    if isinstance(node, list):
        return [describe(value) for value in node]
    if node is not None and not isinstance(node, (str, int, float)):
        raise InputError(f"{node!r} cannot be written as plain JSON; give a number or a string")
    return node


def build(description: Any) -> Any:
    """Build an object from the plain JSON that `describe` returns.

    Raises
    ------
    InputError
        If a class is unknown, or a network's weights are outside of the folder.

    Example
    -------
    >>> build({"class": "ser_plugins.GhostVLAD", "arguments": {"input_size": 8, "clusters": 4}}).output_size
    32
    """
    if isinstance(description, list):
        return [build(value) for value in description]
    if not isinstance(description, Mapping):
        return description
    if set(description) != KEYS:
        return {key: build(value) for key, value in description.items()}
    name, arguments = description["class"], build(description["arguments"])
    _check_known(name)
    if isinstance(arguments, dict):
        arguments = {**{key: before for key, (before, _) in CHANGED.get(name, {}).items()}, **arguments}
    return CLASSES[name](*arguments) if isinstance(arguments, list) else CLASSES[name](**arguments)


def _check_known(name: Any) -> None:
    if name not in list(CLASSES):  # a name from a file may be of any type
        raise InputError(f"class {name!r} is not one that ser_plugins.load builds; use EncoderClassifier.from_hparams")
