"""Save a trained model as a folder that `EncoderClassifier.from_hparams` and `ser_plugins.load` read."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ser_plugins import configuration
from ser_plugins.errors import InputError
from ser_plugins.model_folder.description import describe
from ser_plugins.model_folder.interface import LabelEncoder
from ser_plugins.model_folder.layout import CHECKPOINT, CONFIG, HYPERPARAMS, SECTIONS, WEIGHTS, weighted_modules
from ser_plugins.model_folder.reference import REFERENCE, reference_output
from ser_plugins.models.joint import JointBackbone
from ser_plugins.models.ssl import SSLBackbone

__all__ = [
    "CHECKPOINT",
    "CONFIG",
    "HYPERPARAMS",
    "SECTIONS",
    "WEIGHTS",
    "inference_yaml",
    "save_model_folder",
    "self_contained",
]
logger = logging.getLogger(__name__)
TEMPLATE = Path(__file__).with_name("inference.yaml")


def inference_yaml(tree: Mapping[str, Any]) -> str:
    """Make the ``hyperparams.yaml`` of a model folder from the resolved YAML of a run.

    Parameters
    ----------
    tree : mapping
        The run's YAML with its references resolved.
    """
    return configuration.dump({**{name: tree[name] for name in SECTIONS}, **configuration.read(TEMPLATE)})


def self_contained(tree: configuration.Tree, embedding_model: nn.Module) -> configuration.Tree:
    """Replace the source of a network of transformers by its configuration: the folder itself holds all weights.

    Parameters
    ----------
    tree : dict
        The run's YAML with its references resolved; it is changed in place.
    embedding_model : torch.nn.Module
        The module that was built from it.
    """
    backbone = getattr(embedding_model, "backbone", None)
    if isinstance(backbone, JointBackbone):
        for name, network in zip(backbone.branches, backbone.networks(), strict=True):
            if isinstance(network, SSLBackbone):
                tree["embedding_model"]["backbone"]["branches"][name][-1]["source"] = network.description
    if isinstance(backbone, SSLBackbone):
        tree["embedding_model"]["backbone"]["source"] = backbone.description
        pooling = tree["embedding_model"]["pooling"]
        if isinstance(pooling, dict) and "input_size" in pooling:
            pooling["input_size"] = backbone.output_size
    return tree


def save_model_folder(
    folder: Path, yaml: str, embedding_model: nn.Module, classifier: nn.Module, labels: Sequence[str]
) -> None:
    """Save a model folder, completely or not at all.

    The weights are saved twice: as state dicts for SpeechBrain, and as safetensors for `ser_plugins.load`.
    ``reference.json`` holds the output of the modules for a known signal.

    Parameters
    ----------
    folder : pathlib.Path
        The folder to write; an existing one is replaced.
    yaml : str
        Text of ``hyperparams.yaml``, as `inference_yaml` makes it.
    embedding_model, classifier : torch.nn.Module
        The trained modules.
    labels : sequence of str
        Labels in the order of the classifier's classes.

    Raises
    ------
    OSError
        If the folder cannot be written; an existing one is left as it was.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    old = part.with_name(f"{part.name}.old")
    try:
        (part / HYPERPARAMS).write_text(yaml, encoding="utf-8")
        torch.save(embedding_model.state_dict(), part / CHECKPOINT)
        torch.save(classifier.state_dict(), part / "classifier.ckpt")
        LabelEncoder.from_labels(labels).save(part / "label_encoder.ckpt")  # plain text, in spite of the suffix
        tree = configuration.read(part / HYPERPARAMS)
        plain = _save_plain(part, tree, weighted_modules(embedding_model, classifier).state_dict(), labels)
        config = {"speechbrain_interface": "EncoderClassifier", **plain}
        (part / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        _write_reference(part, tree, embedding_model, classifier)
        part.chmod(0o755)
        if folder.is_dir():
            os.replace(folder, old)
        os.replace(part, folder)
    except BaseException:
        if old.is_dir():
            os.replace(old, folder)
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _save_plain(
    folder: Path, tree: configuration.Tree, weights: Mapping[str, Tensor], labels: Sequence[str]
) -> dict[str, Any]:
    """Save the weights for `ser_plugins.load`; return its part of ``config.json``, if it knows the classes."""
    try:
        modules = {name: describe(tree[name]) for name in SECTIONS}
    except InputError as error:
        # A class of the user's own is no reason to lose the trained weights.
        logger.warning("ser_plugins.load cannot load this model, EncoderClassifier.from_hparams can: %s", error)
        return {}
    # safetensors stores neither tied weights nor the channels-last layout.
    copies = {name: weight.cpu().clone(memory_format=torch.contiguous_format) for name, weight in weights.items()}
    data = safetensors.torch.save(copies)
    (folder / WEIGHTS).write_bytes(data)
    return {"modules": modules, "labels": list(labels), "sha256": {WEIGHTS: hashlib.sha256(data).hexdigest()}}


def _write_reference(folder: Path, tree: configuration.Tree, embedding_model: nn.Module, classifier: nn.Module) -> None:
    """Save the output of the trained modules themselves, before anything is loaded from the folder."""
    try:
        features = configuration.build({name: tree[name] for name in ("compute_features", "mean_var_norm")})
        trained = weighted_modules(embedding_model, classifier).items()
        # Copies: the trained modules stay on their device and in their mode.
        copies = {name: copy.deepcopy(module).cpu().float().eval() for name, module in trained}
        values = reference_output({**features, **copies})
    except Exception as error:  # from a class of the user's own: the trained weights are saved all the same
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        logger.warning("%s is not written, the modules do not accept its signal: %s", REFERENCE, reason)
        return
    (folder / REFERENCE).write_text(json.dumps(values) + "\n", encoding="utf-8")
