"""The Brain that trains an utterance encoder, for emotions or speakers, by softmax or by a metric loss."""

from __future__ import annotations

from typing import Any

import speechbrain as sb
import torch
from speechbrain.nnet.schedulers import update_learning_rate
from torch import Tensor, nn
from torch.nn import functional


class EncoderBrain(sb.Brain):  # type: ignore[misc]
    """Train ``modules.embedding_model``.

    With ``hparams.metric_loss`` the embeddings are trained by it. A ``modules.classifier`` that has weights is trained
    with them, by ``hparams.classification_loss`` of its log-probabilities; given both, the two losses are summed.
    Validation counts how many utterances such a classifier recognises; without one, how many lie nearest to the
    centroid of their own class.

    Attributes
    ----------
    criterion : str
        The validation result that the best epoch is chosen by.
    reference_loader : iterable
        Batches of training utterances that the centroids are computed from, whole as those of validation.
    """

    criterion = "accuracy"

    def embed(self, batch: Any) -> Tensor:
        """Embed the signals of a batch, [B, 1, E]."""
        wavs, lengths = batch.signal
        feats = self.modules.compute_features(wavs)
        embeddings: Tensor = self.modules.embedding_model(self.modules.mean_var_norm(feats, lengths), lengths)
        return embeddings

    def compute_forward(self, batch: Any, stage: sb.Stage) -> Tensor:
        """Embed a batch."""
        return self.embed(batch.to(self.device))

    def compute_objectives(self, predictions: Tensor, batch: Any, stage: sb.Stage) -> Tensor:
        """Compute the loss, and count what is recognised."""
        labels = batch.label.data.squeeze(1).to(self.device)
        loss = torch.zeros((), device=self.device)
        if self.hparams.metric_loss is not None:
            loss = loss + self.hparams.metric_loss(predictions, labels)
            if stage == sb.Stage.TRAIN:
                for name, value in self.hparams.metric_loss.statistics.items():
                    self.statistics[name] = self.statistics.get(name, 0.0) + float(value)
        if learns(self.modules.classifier):
            scores = self.modules.classifier(predictions, labels if stage == sb.Stage.TRAIN else None).squeeze(1)
            loss = loss + self.hparams.classification_loss(scores, labels)
            self._count(scores, labels)
        elif stage != sb.Stage.TRAIN:
            self._count(_unit(predictions) @ self.centroids.T, labels)
        return loss

    def _count(self, scores: Tensor, labels: Tensor) -> None:
        self.correct += int((scores.argmax(-1) == labels).sum())
        self.count += len(labels)

    @torch.no_grad()
    def _class_centroids(self) -> Tensor:
        """Directions of the classes, [C, E], by the weights of now: those of an epoch's batches would be stale."""
        self.modules.eval()
        sums = torch.zeros(self.hparams.n_classes, self.hparams.embedding_size, device=self.device)
        for batch in self.reference_loader:
            labels = batch.label.data.squeeze(1).to(self.device)
            sums.index_add_(0, labels, _unit(self.embed(batch.to(self.device))))
        return functional.normalize(sums, dim=-1)

    def init_optimizers(self) -> None:
        """Give the backbone an optimizer of its own: once transferred, it may learn more slowly or later."""
        encoder = self.modules.embedding_model
        encoder = getattr(encoder, "module", encoder)  # inside of DDP
        backbone = list(getattr(encoder, "backbone", encoder).parameters())
        others = {id(weight) for weight in backbone}
        rest = [weight for weight in self.modules.parameters() if id(weight) not in others]
        self.optimizers_dict = {"backbone": self.opt_class(backbone)}
        if rest:
            self.optimizers_dict["rest"] = self.opt_class(rest)
        if self.checkpointer is not None:
            for name, optimizer in self.optimizers_dict.items():
                self.checkpointer.add_recoverable(f"{name}_optimizer", optimizer)

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Set the learning rates: divided by 10 every ``lr_decay_epochs``."""
        self.correct = self.count = 0
        if stage == sb.Stage.TRAIN and epoch is not None:
            self.train_batches.set_epoch(epoch)
            self.rate = self.hparams.lr * 0.1 ** ((epoch - 1) // self.hparams.lr_decay_epochs)
            # A frozen backbone takes steps of size 0: DDP waits for the gradients of all weights.
            factor = self.hparams.backbone_lr_factor if epoch > self.hparams.frozen_epochs else 0.0
            for name, optimizer in self.optimizers_dict.items():
                update_learning_rate(optimizer, self.rate * (factor if name == "backbone" else 1.0))
            self.statistics: dict[str, float] = {}
        elif not learns(self.modules.classifier):
            self.centroids = self._class_centroids()

    def on_stage_end(self, stage: sb.Stage, stage_loss: float, epoch: int | None = None) -> None:
        """Log, and keep the best checkpoint by validation accuracy."""
        if stage == sb.Stage.TRAIN:
            self.train_stats: dict[str, float] = {"loss": stage_loss}
            if self.count:
                self.train_stats["accuracy"] = self.correct / self.count
            steps = max(1, len(self.train_batches))
            self.train_stats |= {name: value / steps for name, value in self.statistics.items()}
        elif stage == sb.Stage.VALID:
            results = self.validate()
            self.hparams.epoch_counter.update_metric(results[self.criterion])
            self.hparams.train_logger.log_stats(
                {"epoch": epoch, "lr": self.rate},
                train_stats=self.train_stats,
                valid_stats={"loss": stage_loss, **results},
            )
            keys = {f"{self.hparams.epoch_counter.direction}_keys": [self.criterion]}
            self.checkpointer.save_and_keep_only(meta={**results, "epoch": epoch}, num_to_keep=1, **keys)

    def validate(self) -> dict[str, float]:
        """What an epoch's validation found."""
        return {"accuracy": self.correct / max(1, self.count)}


def learns(module: nn.Module) -> bool:
    """True where gradients train the module."""
    return any(True for _ in module.parameters())


def _unit(embeddings: Tensor) -> Tensor:
    return functional.normalize(embeddings.detach().squeeze(1).float(), dim=-1)
