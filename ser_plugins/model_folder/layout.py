"""The files of a model folder, and the sections of its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

HYPERPARAMS, CHECKPOINT = "hyperparams.yaml", "embedding_model.ckpt"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
GRAPH = "model.onnx"  # optional; its weights are those of WEIGHTS
SECTIONS = ("audio_normalizer", "compute_features", "mean_var_norm", "embedding_model", "classifier")


def weighted_modules(embedding_model: nn.Module, classifier: nn.Module) -> nn.ModuleDict:
    """Join the two modules that have weights; the state dict of the result is ``model.safetensors``."""
    from torch import nn  # noqa: PLC0415 — the names of the files need no PyTorch

    return nn.ModuleDict({"embedding_model": embedding_model, "classifier": classifier})
