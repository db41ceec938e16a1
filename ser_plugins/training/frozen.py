"""A backbone that keeps its weights: its descriptors are computed once for each utterance, and stored."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ser_plugins import configuration
from ser_plugins.audio.stored import Floats, StoredFeatures
from ser_plugins.errors import InputError
from ser_plugins.lengths import count_frames, relative_lengths

WITHOUT = ("crop_seconds", "wav_augment", "feat_augment", "mixup")  # they would ask for other descriptors each time


class StoredDescriptors(StoredFeatures):
    """Waveforms in, descriptors of a frozen backbone out: [B, T] to [B, T'', D].

    Parameters
    ----------
    compute_features, mean_var_norm, backbone : torch.nn.Module
        The network up to its descriptors; it is put in evaluation mode and is not trained.
    folder : str or pathlib.Path
        Where the descriptors are stored, in half precision, one file an utterance.
    about : str
        Settings of the three modules, which with their weights identify the descriptors.

    Example
    -------
    >>> from ser_plugins import CAMPPlus, KaldiFbank, MeanNorm
    >>> folder = getfixture("tmp_path")
    >>> StoredDescriptors(KaldiFbank(), MeanNorm(), CAMPPlus(block=1), folder)(torch.randn(2, 16000)).shape
    torch.Size([2, 49, 512])
    """

    def __init__(
        self,
        compute_features: nn.Module,
        mean_var_norm: nn.Module,
        backbone: nn.Module,
        folder: str | Path,
        about: str = "",
    ) -> None:
        super().__init__()
        self.compute_features, self.mean_var_norm, self.backbone = compute_features, mean_var_norm, backbone
        self.requires_grad_(False).eval()
        self.folder = Path(folder)
        digest = hashlib.sha256(about.encode())
        for name, weight in backbone.state_dict().items():
            digest.update(name.encode() + weight.cpu().numpy().tobytes())
        self.digest = digest.hexdigest()

    def train(self, mode: bool = True) -> StoredDescriptors:
        """Stay in evaluation mode."""
        return super().train(False)

    def settings(self) -> str:
        """Return the digest of settings and weights."""
        return self.digest

    @torch.no_grad()
    def describe(self, samples: NDArray[np.float32]) -> Floats:
        """Compute the descriptors [T'', D] of an utterance [T], in half precision."""
        device = next((weight.device for weight in self.backbone.parameters()), torch.device("cpu"))
        feats = self.mean_var_norm(self.compute_features(torch.from_numpy(samples)[None].to(device)))
        descriptors: Tensor = self.backbone(feats)[0][0]
        return descriptors.half().cpu().numpy()


class Descriptors(nn.Module):
    """The backbone of descriptors that are computed already: it returns them and their lengths."""

    def __init__(self, output_size: int) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, feats: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return ``feats`` [B, T'', D]; those of the waveforms' ``lengths`` would be off by one."""
        return feats, relative_lengths(count_frames(feats), feats.shape[1])


class Unchanged(nn.Module):
    """A normalisation that leaves features as they are."""

    def forward(self, feats: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return ``feats``."""
        return feats


def freeze(hparams: MutableMapping[str, Any], tree: configuration.Tree) -> dict[str, nn.Module]:
    """Replace a run's modules by those that train on the stored descriptors of its backbone.

    Parameters
    ----------
    hparams : mapping
        Objects of the run: ``compute_features``, ``mean_var_norm`` and the encoder are changed.
    tree : dict
        The run's YAML; without ``freeze_backbone`` nothing is changed.

    Returns
    -------
    dict
        The modules that were replaced, for `thaw`.

    Raises
    ------
    InputError
        If a setting needs other descriptors of an utterance in each epoch.
    """
    if not tree["freeze_backbone"]:
        return {}
    for name in WITHOUT:
        if hparams.get(name) is not None:
            raise InputError(f"freeze_backbone takes whole utterances as they are; give --{name} null")
    if "features" in hparams["speaker_normalization"]:
        raise InputError("a frozen backbone has its own features; give --speaker_normalization embeddings or none")
    encoder = hparams["embedding_model"]
    replaced = {"compute_features": hparams["compute_features"], "mean_var_norm": hparams["mean_var_norm"]}
    replaced["backbone"] = encoder.backbone
    resolved = configuration.resolve(tree)
    network = resolved["embedding_model"]
    about = [*(resolved[name] for name in ("compute_features", "mean_var_norm")), network.get("backbone", network)]
    folder = Path(str(tree["cache_folder"])) / "descriptors"
    hparams["compute_features"] = StoredDescriptors(
        **replaced, folder=folder, about=repr([*map(configuration.plain, about)])
    )
    hparams["mean_var_norm"] = Unchanged()
    encoder.backbone = Descriptors(encoder.backbone.output_size)
    return replaced


def thaw(modules: nn.ModuleDict, replaced: Mapping[str, nn.Module]) -> None:
    """Put the modules that `freeze` replaced back, below what was trained."""
    if replaced:
        modules["embedding_model"].add_module("backbone", replaced["backbone"])
        modules.update({name: replaced[name] for name in ("compute_features", "mean_var_norm")})
