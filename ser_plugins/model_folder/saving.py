"""The model folder: all that `EncoderClassifier.from_hparams` or `ser_plugins.load` needs, and nothing besides."""

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
from speechbrain.dataio.encoder import CategoricalEncoder
from torch import Tensor, nn

from ser_plugins import configuration
from ser_plugins.errors import InputError
from ser_plugins.model_folder.description import describe
from ser_plugins.model_folder.reference import REFERENCE, respond
from ser_plugins.models.ssl import SSLBackbone

logger = logging.getLogger(__name__)
HYPERPARAMS, CHECKPOINT = "hyperparams.yaml", "embedding_model.ckpt"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
SECTIONS = ("audio_normalizer", "compute_features", "mean_var_norm", "embedding_model", "classifier")


def inference_yaml(tree: Mapping[str, Any]) -> str:
    """Make the YAML of a model folder from the resolved YAML of a run.

    Parameters
    ----------
    tree : mapping
        The run's YAML, references resolved.
    """
    sections = {name: tree[name] for name in SECTIONS}
    return configuration.dump({**sections, **configuration.read(configuration.HPARAMS / "inference.yaml")})


def self_contained(tree: configuration.Tree, embedding_model: nn.Module) -> configuration.Tree:
    """Name no source outside of the folder, which holds all weights: a self-supervised network is described instead.

    Parameters
    ----------
    tree : dict
        The run's YAML, references resolved; it is changed.
    embedding_model : torch.nn.Module
        What was built from it.
    """
    backbone = getattr(embedding_model, "backbone", None)
    if isinstance(backbone, SSLBackbone):
        tree["embedding_model"]["backbone"]["source"] = backbone.description
        pooling = tree["embedding_model"]["pooling"]
        if isinstance(pooling, dict) and "input_size" in pooling:
            pooling["input_size"] = backbone.output_size
    return tree


def trained(embedding_model: nn.Module, classifier: nn.Module) -> nn.ModuleDict:
    """Put what was trained into one module, whose state dict is ``model.safetensors``."""
    return nn.ModuleDict({"embedding_model": embedding_model, "classifier": classifier})


def label_encoder(labels: Sequence[str]) -> CategoricalEncoder:
    """Make SpeechBrain's encoder of the labels, each at its index."""
    encoder = CategoricalEncoder()
    encoder.update_from_iterable(labels, sequence_input=False)
    encoder.expect_len(len(labels))
    return encoder


def save_model_folder(
    folder: Path, yaml: str, embedding_model: nn.Module, classifier: nn.Module, labels: Sequence[str]
) -> None:
    """Write a model folder whole or not at all.

    Parameters
    ----------
    folder : pathlib.Path
        Where; a folder that is there is replaced.
    yaml : str
        Its ``hyperparams.yaml``.
    embedding_model, classifier : torch.nn.Module
        Their weights are written as state dicts, for SpeechBrain, and as safetensors, for `ser_plugins.load`; what they
        make of a known signal goes into ``reference.json``.
    labels : sequence of str
        Labels, in the order of the classifier's classes.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    old = part.with_name(f"{part.name}.old")
    try:
        (part / HYPERPARAMS).write_text(yaml, encoding="utf-8")
        torch.save(embedding_model.state_dict(), part / CHECKPOINT)
        torch.save(classifier.state_dict(), part / "classifier.ckpt")
        label_encoder(labels).save(part / "label_encoder.ckpt")  # plain text; the name that Pretrainer looks for
        tree = configuration.read(part / HYPERPARAMS)
        plain = _plain(part, tree, trained(embedding_model, classifier).state_dict(), labels)
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


def _plain(
    folder: Path, tree: configuration.Tree, weights: Mapping[str, Tensor], labels: Sequence[str]
) -> dict[str, Any]:
    """Write the weights for `ser_plugins.load`; return what it must know besides, nothing where that cannot be told."""
    try:
        modules = {name: describe(tree[name]) for name in SECTIONS}
    except InputError as error:
        # A class of the user's own is no reason to lose what was trained.
        logger.warning("ser_plugins.load will not take this model, EncoderClassifier.from_hparams will: %s", error)
        return {}
    # safetensors takes neither tied weights nor channels that come last.
    copies = {name: weight.cpu().clone(memory_format=torch.contiguous_format) for name, weight in weights.items()}
    data = safetensors.torch.save(copies)
    (folder / WEIGHTS).write_bytes(data)
    return {"modules": modules, "labels": list(labels), "sha256": {WEIGHTS: hashlib.sha256(data).hexdigest()}}


def _write_reference(folder: Path, tree: configuration.Tree, embedding_model: nn.Module, classifier: nn.Module) -> None:
    """Write what the modules themselves make of the known signal, before anything is loaded from the folder."""
    try:
        features = configuration.build({name: tree[name] for name in ("compute_features", "mean_var_norm")})
        learnt = {"embedding_model": embedding_model, "classifier": classifier}
        # Of a copy: the trained ones stay on their device and in their mode.
        copies = {name: copy.deepcopy(module).cpu().float().eval() for name, module in learnt.items()}
        values = respond({**features, **copies})
    except Exception as error:  # whatever a class of the user's own says: what was trained is kept all the same
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        logger.warning("%s is not written, the modules do not take its signal: %s", REFERENCE, reason)
        return
    (folder / REFERENCE).write_text(json.dumps(values) + "\n", encoding="utf-8")
