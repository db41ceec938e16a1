"""Distillation: a student learns to compute what a teacher computes of unlabelled speech."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import speechbrain as sb
import torch
from speechbrain.augment.time_domain import SpeedPerturb
from speechbrain.dataio.batch import PaddedBatch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from ser_plugins.corpora.shards import Shard, ShardFolder, decode_flac, read_shard
from ser_plugins.errors import InputError
from ser_plugins.evaluation.measures import pair_error
from ser_plugins.lengths import frame_mask, length_mask
from ser_plugins.models.encoder import UtteranceEncoder
from ser_plugins.training.brain import EncoderBrain
from ser_plugins.training.stream import CropStream, Example, StreamLoader, UtteranceStream
from ser_plugins.training.teacher import BLOCK, TeacherFolder, averaging, frame_period

Prediction = tuple[Tensor, Tensor, Tensor, Tensor]


class Student(nn.Module):
    """An encoder, and linear maps from its descriptors and its embedding to those of a teacher.

    Parameters
    ----------
    encoder : UtteranceEncoder
        What learns; it alone is exported.
    frame_size, embedding_size : int
        Sizes of the teacher's descriptors and embedding.

    Raises
    ------
    InputError
        If the encoder has no descriptors.

    Example
    -------
    >>> from ser_plugins import GhostVLAD, SEResNet34
    >>> student = Student(UtteranceEncoder(SEResNet34(), GhostVLAD()), 1024, 192)
    >>> [part.shape for part in student(torch.randn(2, 201, 257))]
    [torch.Size([2, 1, 512]), torch.Size([2, 13, 1024]), torch.Size([2]), torch.Size([2, 192])]
    """

    def __init__(self, encoder: UtteranceEncoder, frame_size: int, embedding_size: int) -> None:
        if not isinstance(encoder, UtteranceEncoder):
            raise InputError(f"a student is an UtteranceEncoder, not {type(encoder).__name__}; change embedding_model")
        super().__init__()
        self.encoder = encoder
        self.frame_map = nn.Linear(int(encoder.backbone.output_size), frame_size)  # type: ignore[arg-type]
        self.embedding_map = nn.Linear(encoder.output_size, embedding_size)

    @property
    def backbone(self) -> nn.Module:
        """The encoder's backbone, whose weights have an optimizer of their own."""
        return self.encoder.backbone

    def forward(self, feats: Tensor, lengths: Tensor | None = None) -> Prediction:
        """Predict a teacher's output from ``feats`` [B, T', F] with relative ``lengths`` [B].

        Returns
        -------
        embeddings : torch.Tensor
            The encoder's own, [B, 1, E].
        frames : torch.Tensor
            The teacher's descriptors at the encoder's frame rate, [B, T'', D].
        lengths : torch.Tensor
            Relative lengths of the frames, [B].
        speakers : torch.Tensor
            The teacher's embeddings, [B, E'].
        """
        descriptors, lengths = self.backbone(feats, lengths)
        embeddings = self.encoder.pool(descriptors, lengths)
        return embeddings, self.frame_map(descriptors), lengths, self.embedding_map(embeddings.squeeze(1))


class DistillationLoss:
    """Squared error of the frames, cosine of the embeddings, and error of the similarities between utterances.

    The loss is ``frame error + embedding (1 - cosine) + relation r``. r compares the similarities within a batch, after
    Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019. Each pair of utterances has a cosine of
    the student's own embeddings and one of the teacher's; r is the mean squared difference of the two.

    Parameters
    ----------
    embedding, relation : float
        Weights of the two terms.

    Raises
    ------
    ValueError
        If a weight is negative.

    Example
    -------
    >>> one = torch.eye(3)
    >>> loss, cosine = DistillationLoss()(torch.tensor(0.25), one, one, one)
    >>> float(loss), float(cosine)
    (0.25, 1.0)
    """

    def __init__(self, embedding: float = 0.5, relation: float = 1.0) -> None:
        for name, value in (("embedding", embedding), ("relation", relation)):
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise ValueError(f"the weight {name} of the distillation loss must be 0 or more, got {value!r}")
        self.embedding, self.relation = embedding, relation

    def __call__(
        self, frame_error: Tensor, embeddings: Tensor, predicted: Tensor, wanted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Join the terms.

        Parameters
        ----------
        frame_error : torch.Tensor
            Mean squared error of the frames.
        embeddings : torch.Tensor
            The student's own, [B, E].
        predicted, wanted : torch.Tensor
            The teacher's embeddings, [B, E']; those wanted of unit length.

        Returns
        -------
        loss, cosine : torch.Tensor
            The loss, and the mean cosine of ``predicted`` and ``wanted``.
        """
        cosine = functional.cosine_similarity(predicted, wanted).mean()
        own = functional.normalize(embeddings, dim=1)
        difference = (own @ own.T - wanted @ wanted.T).fill_diagonal_(0)
        relation = difference.square().sum() / max(1, len(own) * (len(own) - 1))
        return frame_error + self.embedding * (1 - cosine) + self.relation * relation, cosine


class DistillationBrain(EncoderBrain):
    """Train a `Student`; validate on utterances of speakers that are not trained on.

    Batches hold ``signal``, and of the teacher ``frames`` (descriptors a block of 80 ms) and ``speakers`` (embedding).
    Besides those of `EncoderBrain`, ``hparams`` has ``targets``, a `TeacherFolder`; ``scale``, its statistics;
    ``trials``, the `ShardFolder` of the trial pairs; and ``distillation_loss``.

    The teacher's descriptors are standardised by the statistics, its embeddings centred and scaled to unit length.
    Validation measures the error of the frames (1 where a student says nothing), the cosine of the embeddings, and the
    equal error rate of the trial pairs by the student's own embeddings.

    Raises
    ------
    InputError
        If the augmentation changes the speed: the teacher's frames would stand elsewhere.
    """

    criterion, best = "frame_error", "min"

    def __init__(
        self,
        modules: Mapping[str, nn.Module] | None = None,
        opt_class: Any = None,
        hparams: Mapping[str, Any] | None = None,
        run_opts: Any = None,
        checkpointer: Any = None,
    ) -> None:
        super().__init__(modules, opt_class, hparams, run_opts, checkpointer)
        augmentations = getattr(self.hparams.wav_augment, "augmentations", {}).values()
        if any(isinstance(one, SpeedPerturb) for one in augmentations):
            raise InputError("wav_augment changes the speed, and the teacher's frames do not; leave SpeedPerturb out")
        scale = self.hparams.scale
        self.mean, self.deviation, self.mean_direction = (
            part.to(self.device) for part in (scale.mean, scale.deviation, scale.center)
        )
        self.modules.eval()
        self.width = frame_period(self._describe, torch.device(self.device)) / BLOCK

    def _describe(self, wavs: Tensor) -> Tensor:
        ones = torch.ones(len(wavs), device=wavs.device)
        feats = self.modules.mean_var_norm(self.modules.compute_features(wavs), ones)
        descriptors: Tensor = self.modules.embedding_model.backbone(feats, ones)[0]
        return descriptors

    def compute_forward(self, batch: Any, stage: sb.Stage) -> Prediction:  # type: ignore[override]
        """Predict the teacher's output for a batch; in training, of augmented utterances."""
        batch = batch.to(self.device)
        feats, lengths = self.augmentation.features(self.modules, batch, augment=stage == sb.Stage.TRAIN)
        return self.network("embedding_model")(feats, lengths)  # type: ignore[no-any-return]

    def compute_objectives(self, predictions: Prediction, batch: Any, stage: sb.Stage) -> Tensor:  # type: ignore[override]
        """Compute the loss of a training batch; keep what `validate` needs of a validation batch."""
        batch = batch.to(self.device)
        embeddings, frames, lengths, predicted = predictions
        wanted = functional.normalize(batch.speakers.data.float(), dim=1) - self.mean_direction
        wanted = functional.normalize(wanted, dim=1)
        targets = self._targets(batch, frames.shape[1])
        train = stage == sb.Stage.TRAIN
        if train:  # copies that the augmenters add
            wanted, targets = self.augmentation.repeat(wanted), self.augmentation.repeat(targets)
        errors = (frames.float() - targets).square().mean(2)[length_mask(lengths, frames.shape[1])]
        found = embeddings.squeeze(1).float(), predicted.float(), wanted
        if not train:
            self.validated.append((batch.id, errors, *found))
            return torch.zeros((), device=self.device)
        loss, cosine = self.hparams.distillation_loss(errors.mean(), *found)
        for name, value in (("frame_error", errors.mean()), ("cosine", cosine)):
            self.statistics.setdefault(name, []).append(float(value.detach()))
        return loss  # type: ignore[no-any-return]

    def _targets(self, batch: Any, count: int) -> Tensor:
        """Average a teacher's standardised blocks around the centre of each of ``count`` descriptors, [B, count, D]."""
        blocks, lengths = batch.frames
        total = blocks.shape[1]
        blocks = (blocks.float() - self.mean) / self.deviation
        known = frame_mask(torch.round(lengths.double() * total).long(), total).unsqueeze(1)
        weights = averaging(count, total, self.width, -self.width / 2).to(blocks) * known
        targets: Tensor = (weights / weights.sum(2, keepdim=True).clamp(min=1e-6)) @ blocks
        return targets

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Compute loss, error of the frames, cosine of the embeddings and equal error rate."""
        ids, *parts = zip(*self.validated, strict=True)
        errors, embeddings, predicted, wanted = map(torch.cat, parts)
        loss, cosine = self.hparams.distillation_loss(errors.mean(), embeddings, predicted, wanted)
        names = [name for batch in ids for name in batch]
        pairs = self.hparams.trials.trials()
        pairs = pairs[pairs[["first", "second"]].isin(names).all(axis=1)]  # with --debug not all are validated
        eer = pair_error(dict(zip(names, embeddings.cpu(), strict=True)), pairs)
        return {"loss": float(loss), "frame_error": float(errors.mean()), "cosine": float(cosine), "eer": eer}


class AlignedStream(CropStream):
    """Batches of random crops of speech, and of what a teacher computed of the same 80 ms blocks.

    Parameters
    ----------
    shards : sequence of Shard
        Shards that are trained on.
    targets : TeacherFolder
        The teacher's output for them.
    batch_size : int
        Utterances a batch, at most.
    crop_seconds : float
        Length of the crops, rounded down to whole blocks; shorter utterances are repeated first.
    seed : int
        Not negative.

    Raises
    ------
    InputError
        If the crops are shorter than a block.
    """

    def __init__(
        self, shards: Sequence[Shard], targets: TeacherFolder, batch_size: int, crop_seconds: float, seed: int
    ) -> None:
        super().__init__(shards, (), batch_size, crop_seconds, seed)
        self.targets = targets
        self.blocks = self.crop_samples // BLOCK
        if self.blocks < 1:
            raise InputError(f"crop_seconds {crop_seconds} is shorter than a teacher's frame; give 0.08 or more")

    def _read(self, shard: Shard) -> Iterable[Any]:
        known = self.targets.read(shard)
        return ((name, data, *known[name]) for name, _, data in read_shard(shard.path))

    def _example(self, utterance: Any, where: float) -> Example:
        name, data, blocks, embedding = utterance
        signal, frames = aligned_crop(decode_flac(data), blocks, self.blocks, where)
        return _example(name, torch.from_numpy(signal), frames, embedding)


class TargetStream(IterableDataset[list[Example]]):
    """Batches of whole utterances, and of what a teacher computed of them."""

    def __init__(self, shards: Sequence[Shard], targets: TeacherFolder) -> None:
        self.shards = shards
        self.targets = targets

    def __iter__(self) -> Iterator[list[Example]]:
        """Yield all batches."""
        for shard in (one for one in self.shards if one.samples):
            known = self.targets.read(shard)
            for batch in UtteranceStream([shard]):
                yield [_example(one["id"], one["signal"], *known[one["id"]]) for one in batch]


def _example(name: str, signal: Tensor, frames: np.ndarray[Any, Any], embedding: np.ndarray[Any, Any]) -> Example:
    return {"id": name, "signal": signal, "frames": torch.tensor(frames), "speakers": torch.tensor(embedding)}


def aligned_crop(
    signal: np.ndarray[Any, Any], frames: np.ndarray[Any, Any], blocks: int, where: float
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Cut ``blocks`` blocks of 80 ms and their frames, ``where`` (0 … 1) they fit; a shorter clip is repeated first.

    Example
    -------
    >>> signal, frames = aligned_crop(np.arange(4 * BLOCK), np.arange(4)[:, None], 2, 0.5)
    >>> int(signal[0]) // BLOCK, frames.ravel().tolist()
    (1, [1, 2])
    """
    whole = max(1, len(signal) // BLOCK)
    parts = np.pad(signal, (0, max(0, BLOCK - len(signal))))[: whole * BLOCK].reshape(whole, BLOCK)
    repeated = whole * -(-blocks // whole)
    places = (int(where * (repeated - blocks + 1)) + np.arange(blocks)) % whole
    return parts[places].ravel(), frames[places]


def trained_shards(shards: ShardFolder) -> list[Shard]:
    """Shards of all speakers but those of the trial pairs."""
    return [*shards.part("train"), *shards.part("valid")]


def make_loaders(
    brain: DistillationBrain, tree: Mapping[str, Any], shards: ShardFolder, targets: TeacherFolder
) -> tuple[StreamLoader, DataLoader[Any]]:
    """Make loaders of aligned random crops for training and of the utterances of the trial pairs for validation."""
    stream = AlignedStream(trained_shards(shards), targets, tree["batch_size"], tree["crop_seconds"], tree["seed"])
    train_loader = StreamLoader(stream, tree["loader_workers"])
    brain.checkpointer.add_recoverable("train_loader", train_loader)
    valid = TargetStream(shards.part("trials"), targets)
    return train_loader, DataLoader(valid, batch_size=None, collate_fn=PaddedBatch)
