"""Pre-training by reconstruction: a sparse auto-encoder of spectrogram patches, on speech without labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import speechbrain as sb
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ser_plugins.corpora.shards import ShardFolder
from ser_plugins.errors import InputError
from ser_plugins.models.encoder import UtteranceEncoder
from ser_plugins.models.patch_encoder import PatchEncoder
from ser_plugins.training.brain import EncoderBrain
from ser_plugins.training.distillation import trained_shards
from ser_plugins.training.stream import CropStream, StreamLoader, utterance_loader

Reconstruction = tuple[Tensor, Tensor, Tensor]


class AutoEncoder(nn.Module):
    """An encoder whose backbone is a `PatchEncoder`, and a linear decoder from its codes back to the patches.

    Parameters
    ----------
    encoder : UtteranceEncoder
        Its backbone learns; it alone is exported.

    Raises
    ------
    InputError
        If the backbone has no patches.

    Example
    -------
    >>> from ser_plugins import MeanPooling
    >>> model = AutoEncoder(UtteranceEncoder(PatchEncoder(80, width=8, codes=256), MeanPooling(), None))
    >>> [part.shape for part in model(torch.randn(2, 100, 80), torch.tensor([1.0, 0.5]))]
    [torch.Size([150, 640]), torch.Size([150, 640]), torch.Size([150, 256])]
    """

    def __init__(self, encoder: UtteranceEncoder) -> None:
        backbone = getattr(encoder, "backbone", encoder)
        if not isinstance(backbone, PatchEncoder):
            raise InputError(f"{type(backbone).__name__} has no patches to reconstruct; give a PatchEncoder")
        super().__init__()
        self.encoder = encoder
        self.decoder = nn.Linear(backbone.output_size, backbone.patch_size)

    @property
    def backbone(self) -> PatchEncoder:
        """The encoder's backbone, whose weights have an optimizer of their own."""
        return self.encoder.backbone  # type: ignore[return-value]

    def forward(self, feats: Tensor, lengths: Tensor | None = None) -> Reconstruction:
        """Encode and decode the patches of ``feats`` [B, T', F] with relative ``lengths`` [B].

        Returns
        -------
        decoded, patches : torch.Tensor
            The patches as the decoder computes them, and as they are, [N, patch_size].
        codes : torch.Tensor
            Their codes, [N, D].
        """
        patches = self.backbone.patches(feats, lengths)
        codes = self.backbone.encode(patches)
        return self.decoder(codes), patches, codes


class ReconstructionLoss:
    r"""Squared error of the patches, and a penalty on neurons that are active too often.

    The loss is ``error + weight * penalty``. The error is the mean over all values of all patches. The penalty is the
    mean over the neurons of the divergence between two Bernoulli distributions, as in Ng's sparse auto-encoder:

    .. math:: \rho \log \frac{\rho}{a_j} + (1 - \rho) \log \frac{1 - \rho}{1 - a_j}

    :math:`a_j` is the mean activation of neuron j in the batch, and :math:`\rho` the wanted one.

    Parameters
    ----------
    sparsity : float
        The wanted mean activation, between 0 and 1.
    weight : float
        Weight of the penalty.

    Raises
    ------
    InputError
        If the sparsity is not between 0 and 1, or the weight is negative.

    Example
    -------
    >>> patches, codes = torch.ones(4, 6), torch.full((4, 2), 0.05)
    >>> loss, error = ReconstructionLoss(sparsity=0.05)(torch.zeros(4, 6), patches, codes)
    >>> round(float(loss), 4), float(error)
    (1.0, 1.0)
    """

    def __init__(self, sparsity: float = 0.05, weight: float = 1.0) -> None:
        if not 0 < sparsity < 1:
            raise InputError(f"sparsity is {sparsity}; give a number between 0 and 1")
        if weight < 0:
            raise InputError(f"the weight of the sparsity penalty is {weight}; give a number of at least 0")
        self.sparsity, self.weight = sparsity, weight

    def __call__(self, decoded: Tensor, patches: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and the error, in float32 or finer, of patches [N, P] and codes [N, D]."""
        error = (decoded.to(patches.dtype) - patches).square().mean()
        active = codes.to(patches.dtype).mean(0).clamp(1e-6, 1 - 1e-6)
        wanted = torch.full_like(active, self.sparsity)
        penalty = wanted * (wanted / active).log() + (1 - wanted) * ((1 - wanted) / (1 - active)).log()
        return error + self.weight * penalty.mean(), error


class ReconstructionBrain(EncoderBrain):
    """Train an `AutoEncoder`; validate on utterances of speakers that are not trained on.

    Batches hold ``signal``. Besides those of `EncoderBrain`, ``hparams`` has ``reconstruction_loss``.
    """

    criterion, best = "reconstruction_error", "min"

    def compute_forward(self, batch: Any, stage: sb.Stage) -> Reconstruction:  # type: ignore[override]
        """Encode and decode the patches of a batch; in training, of augmented utterances."""
        batch = batch.to(self.device)
        feats, lengths = self.augmentation.features(self.modules, batch, augment=stage == sb.Stage.TRAIN)
        return self.network("embedding_model")(feats, lengths)  # type: ignore[no-any-return]

    def compute_objectives(self, predictions: Reconstruction, batch: Any, stage: sb.Stage) -> Tensor:  # type: ignore[override]
        """Compute the loss of a batch; keep those of validation, with how many patches they are of."""
        loss, error = self.hparams.reconstruction_loss(*predictions)
        if stage == sb.Stage.TRAIN:
            found = {"reconstruction_error": error, "activation": predictions[2].mean()}
            for name, value in found.items():
                self.statistics.setdefault(name, []).append(float(value.detach()))
        else:
            self.validated.append((len(predictions[0]), float(loss), float(error)))
        return loss  # type: ignore[no-any-return]

    def validate(self) -> dict[str, float]:
        """Average loss and error over the patches of all validated utterances."""
        counts, losses, errors = (torch.tensor(part, dtype=torch.float64) for part in zip(*self.validated, strict=True))
        weights = counts / counts.sum()
        return {"loss": float(weights @ losses), "reconstruction_error": float(weights @ errors)}


def make_loaders(
    brain: ReconstructionBrain, tree: Mapping[str, Any], shards: ShardFolder
) -> tuple[StreamLoader, DataLoader[Any]]:
    """Make loaders of random crops for training and of whole utterances of other speakers for validation."""
    options = (tree["batch_size"], tree["crop_seconds"], tree["seed"])
    train_loader = StreamLoader(CropStream(trained_shards(shards), shards.speakers, *options), tree["loader_workers"])
    brain.checkpointer.add_recoverable("train_loader", train_loader)
    return train_loader, utterance_loader(shards.part("trials"))
