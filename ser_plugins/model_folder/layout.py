"""The files of a model folder, and the sections of its configuration."""

from __future__ import annotations

from torch import nn

HYPERPARAMS, CHECKPOINT = "hyperparams.yaml", "embedding_model.ckpt"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
SECTIONS = ("audio_normalizer", "compute_features", "mean_var_norm", "embedding_model", "classifier")


def weighted_modules(embedding_model: nn.Module, classifier: nn.Module) -> nn.ModuleDict:
    """Join the two modules that have weights; the state dict of the result is ``model.safetensors``."""
    return nn.ModuleDict({"embedding_model": embedding_model, "classifier": classifier})
