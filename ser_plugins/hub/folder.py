"""The model folder: all that `EncoderClassifier.from_hparams` needs, and nothing that was trained besides."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from speechbrain.dataio.encoder import CategoricalEncoder
from torch import nn

from ser_plugins import configuration
from ser_plugins.models.ssl import SSLBackbone

SECTIONS = ("audio_normalizer", "compute_features", "mean_var_norm", "embedding_model", "classifier")


def inference_yaml(tree: Mapping[str, Any], template: Path) -> str:
    """Make the YAML of a model folder from the resolved YAML of a run.

    Parameters
    ----------
    tree : mapping
        The run's YAML, references resolved.
    template : pathlib.Path
        ``hparams/inference.yaml``: modules, label encoder and pretrainer.
    """
    return configuration.dump({**{name: tree[name] for name in SECTIONS}, **configuration.read(template)})


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
    return tree


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
        Their weights are written as state dicts.
    labels : sequence of str
        Labels, in the order of the classifier's classes.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    old = part.with_name(f"{part.name}.old")
    try:
        (part / "hyperparams.yaml").write_text(yaml, encoding="utf-8")
        torch.save(embedding_model.state_dict(), part / "embedding_model.ckpt")
        torch.save(classifier.state_dict(), part / "classifier.ckpt")
        encoder = CategoricalEncoder()
        encoder.update_from_iterable(labels, sequence_input=False)
        encoder.save(part / "label_encoder.ckpt")  # plain text; the name that Pretrainer looks for
        (part / "config.json").write_text(json.dumps({"speechbrain_interface": "EncoderClassifier"}) + "\n")
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
