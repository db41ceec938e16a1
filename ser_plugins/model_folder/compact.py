"""A model folder at half the size, for `ser_plugins.load` and as a pre-trained encoder."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from ser_plugins.files import atomic_write
from ser_plugins.model_folder.config import read_config
from ser_plugins.model_folder.lineage import read_lineage, write_lineage
from ser_plugins.model_folder.saving import CHECKPOINT, CONFIG, HYPERPARAMS, WEIGHTS


def compact_model_folder(source: Path, target: Path) -> None:
    """Write a copy of a model folder whose weight matrices are in half precision, and that has no SpeechBrain files.

    Vectors keep float32: statistics of batch normalisation may be beyond the range of half precision.

    Parameters
    ----------
    source : pathlib.Path
        ``model/`` or ``encoder/`` of a run.
    target : pathlib.Path
        The folder to write: ``config.json``, ``model.safetensors``, ``hyperparams.yaml`` and ``lineage.json``.

    Raises
    ------
    InputError
        If ``source`` is no model folder, or its lineage is of other weights.
    """
    config = dict(read_config(source / CONFIG))
    lineage = read_lineage(source / CHECKPOINT)
    weights = safetensors.torch.load_file(source / WEIGHTS)
    data = safetensors.torch.save({name: _half(weight) for name, weight in weights.items()})
    digest = hashlib.sha256(data).hexdigest()
    atomic_write(target / WEIGHTS, data)
    atomic_write(target / CONFIG, json.dumps({**config, "sha256": {WEIGHTS: digest}}, indent=2) + "\n")
    shutil.copyfile(source / HYPERPARAMS, target / HYPERPARAMS)
    if lineage:
        write_lineage(target, [*lineage[:-1], replace(lineage[-1], sha256=digest)])


def _half(weight: Tensor) -> Tensor:
    return weight.to(torch.float16) if weight.is_floating_point() and weight.dim() > 1 else weight
