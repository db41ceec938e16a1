"""The Brain that trains an utterance encoder, for emotions or speakers, by softmax or by a metric loss."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import speechbrain as sb
import torch
from speechbrain.nnet.schedulers import update_learning_rate
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ser_plugins.distributed import rank_and_size
from ser_plugins.models.encoder import centre
from ser_plugins.training.graphs import EncoderGraphs

SAVE_SECONDS = 60  # an interrupted training loses so much at most


class EncoderBrain(sb.Brain):  # type: ignore[misc]
    """Train ``modules.embedding_model``.

    With ``hparams.metric_loss`` the embeddings are trained by it. A ``modules.classifier`` that has weights is trained
    with them, by ``hparams.classification_loss`` of its log-probabilities; given both, the two losses are summed.
    Validation counts how many utterances such a classifier recognises; without one, how many lie nearest to the
    centroid of their own class. ``hparams.wav_augment`` and ``hparams.feat_augment``, SpeechBrain's augmenters, change
    what is trained on. With ``hparams.ema_decay``, validation sees the exponential moving average of the weights over
    the steps, and that is what is kept.

    Attributes
    ----------
    criterion : str
        The validation result that the best epoch is chosen by.
    reference_loader : iterable
        Batches of training utterances, whole as those of validation, that centroids and the averages' statistics of
        batch normalisation are computed from.
    valid_loader : iterable
        Batches of the validation part, whose embeddings a centred encoder has to know all of, first.
    averages : dict
        What has an average of its weights, by the names of ``modules``.
    """

    criterion = "accuracy"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.averages: dict[str, AveragedModel] = {}
        self.followed: dict[str, tuple[list[Tensor], list[Tensor]]] = {}
        self.graphs: EncoderGraphs | None = None
        self.reference_loader: Iterable[Any] = ()
        self.valid_loader: Iterable[Any] = ()
        self.best_score, self.saved = -math.inf, -math.inf

    def _network(self, name: str) -> nn.Module:
        """A module; where nothing is trained, with the average of its weights."""
        averaged = name in self.averages and not self.modules.training
        network: nn.Module = self.averages[name].module if averaged else self.modules[name]
        return network

    def embed(self, batch: Any, augmented: bool = False) -> Tensor:
        """Embed the signals of a batch, [B, 1, E]."""
        wavs, lengths = batch.signal
        voices = (batch.voice.data,) if hasattr(batch, "voice") else ()
        if augmented and self.hparams.wav_augment is not None:
            wavs, lengths = self.hparams.wav_augment(wavs, lengths)
            voices = tuple(map(self.hparams.wav_augment.replicate_labels, voices))
        feats = self.modules.mean_var_norm(self.modules.compute_features(wavs), lengths, *voices)
        if augmented and self.hparams.feat_augment is not None:
            feats, lengths = self.hparams.feat_augment(feats, lengths)
        if augmented and self.hparams.mixup:
            feats = self._mix(feats)
        # In training a batch holds enough of each speaker; elsewhere embed_all knows all that they say.
        told = (self._augmented(_indices(batch.speaker, self.device)),) if self.centred and augmented else ()
        network = self.graphs if augmented and not told and self.graphs else self._network("embedding_model")
        embeddings: Tensor = network(feats, lengths, *told)
        return embeddings

    def _init_graphs(self) -> None:
        """Train the encoder as CUDA graphs, in one process on a GPU.

        Not where gradients are accumulated: those of a graph are overwritten by the next mini-batch.
        """
        encoder = self.modules.embedding_model
        compiled = isinstance(encoder, OptimizedModule)  # which has all attributes of what it wraps
        one_by_one = rank_and_size()[1] == 1 and self.grad_accumulation_factor == 1 and not compiled
        if self.device_type == "cuda" and one_by_one and getattr(encoder, "capturable", False):
            self.graphs = EncoderGraphs(encoder)

    @property
    def centred(self) -> bool:
        """True where the mean of its speaker's is taken from each embedding."""
        return bool(getattr(_inside(self.modules.embedding_model), "speaker_centred", False))

    @torch.no_grad()
    def embed_all(self, batches: Iterable[Any]) -> tuple[list[str], Tensor, Tensor]:
        """Embed whole utterances: their ids, labels [N] and embeddings [N, 1, E], centred if they are to be."""
        ids: list[str] = []
        speakers: list[str] = []
        found: list[tuple[Tensor, Tensor]] = []
        for batch in batches:
            ids += batch.id
            speakers += batch.speaker if self.centred else []
            found.append((batch.label.data.squeeze(1).to(self.device), self.embed(batch.to(self.device)).float()))
        labels, embeddings = map(torch.cat, zip(*found, strict=True))
        if self.centred:
            embeddings = centre(embeddings.squeeze(1), _indices(speakers, self.device)).unsqueeze(1)
        return ids, labels, embeddings

    def compute_forward(self, batch: Any, stage: sb.Stage) -> Tensor:
        """Embed a batch; in training, augmented."""
        if stage == sb.Stage.VALID and self.centred:
            return torch.stack([self.embeddings[name] for name in batch.id])
        return self.embed(batch.to(self.device), augmented=stage == sb.Stage.TRAIN)

    def _augmented(self, values: Tensor) -> Tensor:
        """Give each utterance that the augmenters made the value of the one that it was made of."""
        for augment in (self.hparams.wav_augment, self.hparams.feat_augment):
            values = values if augment is None else augment.replicate_labels(values)
        return values

    def _mix(self, feats: Tensor) -> Tensor:
        """Mix each spectrogram with a smaller share of another (mixup: Zhang et al., ICLR 2018)."""
        share = float(torch.distributions.Beta(self.hparams.mixup, self.hparams.mixup).sample())
        self.share, self.order = max(share, 1 - share), torch.randperm(len(feats), device=feats.device)
        return self.share * feats + (1 - self.share) * feats[self.order]

    def _seed_step(self) -> None:
        """Give the next step its own seed: a resumed run crops and augments as one that was never stopped."""
        step = self.hparams.epoch_counter.current * len(self.train_batches) + self.step
        # Hashed: with a sum, the seeds 1 and 2 would draw the same, a step apart.
        seed = int(np.random.SeedSequence((int(self.hparams.seed), step, rank_and_size()[0])).generate_state(1)[0])
        sb.utils.seed.seed_everything(seed, verbose=False)
        if self.hparams.wav_augment is None:
            return
        # AddNoise and AddReverb read recordings through loaders of their own, which they make at first use and begin
        # anew where they are at an end: here, at each step, in an order of the step's own.
        for augmentation in self.hparams.wav_augment.augmentations.values():
            for reader in ("noise_data", "rir_data"):
                if hasattr(augmentation, reader):
                    augmentation.data_loader.sampler.seed = seed
                    setattr(augmentation, reader, iter(()))

    def compute_objectives(self, predictions: Tensor, batch: Any, stage: sb.Stage) -> Tensor:
        """Compute the loss, and count what is recognised."""
        labels = batch.label.data.squeeze(1).to(self.device)
        if stage == sb.Stage.TRAIN:
            labels = self._augmented(labels)
        loss = torch.zeros((), device=self.device)
        if self.hparams.metric_loss is not None:
            loss = loss + self.hparams.metric_loss(predictions, labels)
            if stage == sb.Stage.TRAIN:
                for name, value in self.hparams.metric_loss.statistics.items():
                    self.statistics.setdefault(name, []).append(float(value))
        if learns(self.modules.classifier):
            classifier = self._network("classifier")
            scores = classifier(predictions, labels if stage == sb.Stage.TRAIN else None).squeeze(1)
            error = self.hparams.classification_loss(scores, labels)
            if stage == sb.Stage.TRAIN and self.hparams.mixup:
                other = self.hparams.classification_loss(scores, labels[self.order])
                error = self.share * error + (1 - self.share) * other
            loss = loss + error
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
        sums = torch.zeros(self.hparams.n_classes, self.hparams.embedding_size, device=self.device)
        _, labels, embeddings = self.embed_all(self.reference_loader)
        sums.index_add_(0, labels, _unit(embeddings))
        return functional.normalize(sums, dim=-1)

    def init_optimizers(self) -> None:
        """Give the backbone an optimizer of its own: once transferred, it may learn more slowly or later."""
        encoder = _inside(self.modules.embedding_model)
        backbone = list(getattr(encoder, "backbone", encoder).parameters())
        others = {id(weight) for weight in backbone}
        rest = [weight for weight in self.modules.parameters() if id(weight) not in others]
        self.optimizers_dict = {"backbone": self.opt_class(backbone)}
        if rest:
            self.optimizers_dict["rest"] = self.opt_class(rest)
        if self.checkpointer is not None:
            for name, optimizer in self.optimizers_dict.items():
                self.checkpointer.add_recoverable(f"{name}_optimizer", optimizer)
        self._init_graphs()
        decay = getattr(self.hparams, "ema_decay", None)  # speakers have no reference_loader
        if decay is not None:
            self._init_averages()

    def _init_averages(self) -> None:
        """Begin an average of each network."""
        for name, module in self.modules.items():
            if learns(module):
                self.averages[name] = AveragedModel(_inside(module)).eval()
                self.followed[name] = list(self.averages[name].module.parameters()), list(module.parameters())
                if self.checkpointer is not None:
                    self.checkpointer.add_recoverable(f"{name}_average", self.averages[name])

    @torch.no_grad()
    def _update_averages(self) -> None:
        """Let the averages follow the weights; the first ones are soon forgotten.

        Weights alone, which all are done at once: ``update_parameters`` also copies each buffer, at each step.
        """
        for name, (averaged, weights) in self.followed.items():
            steps = int(self.averages[name].n_averaged)
            share = min(float(self.hparams.ema_decay), (1 + steps) / (10 + steps)) if steps else 0.0
            get_ema_multi_avg_fn(share)(averaged, weights, steps)  # type: ignore[no-untyped-call]
            self.averages[name].n_averaged += 1

    @torch.no_grad()
    def _measure_averages(self) -> None:
        """Take the statistics of batch normalisation anew: those of the weights that passed are not their average's."""
        for name, average in self.averages.items():
            for own, buffer in zip(average.module.buffers(), _inside(self.modules[name]).buffers(), strict=True):
                own.copy_(buffer)
        modules = [module for average in self.averages.values() for module in average.modules()]
        norms = {norm: norm.momentum for norm in modules if isinstance(norm, _NormBase)}
        for norm in norms:
            norm.reset_running_stats()
            norm.train().momentum = None  # the mean over all batches
        for batch in self.reference_loader if norms else ():
            if len(batch.id) > 1:  # of one there is no variance
                self.embed(batch.to(self.device))
        for norm, momentum in norms.items():
            norm.eval().momentum = momentum

    def on_fit_batch_end(self, batch: Any, outputs: Tensor, loss: Tensor, should_step: bool) -> None:
        """Let the averages follow the weights, and seed what the next step draws."""
        if should_step:
            self._update_averages()
        self._seed_step()

    def settle(self) -> dict[str, nn.Module]:
        """End the training: the networks are those that validation saw. Return them by their names in checkpoints.

        What holds audio or graphs on a GPU is let go: a next training may want its memory.
        """
        if self.checkpointer is not None:
            self.checkpointer.recoverables.clear()  # the brain is one of them: a circle, which is collected late
        self.graphs, self.reference_loader, self.valid_loader = None, (), ()
        gc.collect()
        recoverables: dict[str, nn.Module] = {}
        for name, module in self.modules.items():
            if name in self.averages:
                average, _ = self.averages.pop(name), self.followed.pop(name)
                self.modules[name], recoverables[f"{name}_average"] = average.module, average
            elif learns(module):
                self.modules[name] = recoverables[name] = _inside(module)
        return recoverables

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Set the learning rates: ``lr``, of which ``lr_schedule`` tells the epoch's share."""
        self.correct = self.count = 0
        if stage == sb.Stage.TRAIN and epoch is not None:
            self.train_batches.set_epoch(epoch)
            self.rate = self.hparams.lr * self.hparams.lr_schedule(epoch)
            # A frozen backbone takes steps of size 0: DDP waits for the gradients of all weights.
            factor = self.hparams.backbone_lr_factor if epoch > self.hparams.frozen_epochs else 0.0
            for name, optimizer in self.optimizers_dict.items():
                update_learning_rate(optimizer, self.rate * (factor if name == "backbone" else 1.0))
            self.statistics: dict[str, list[float]] = {}
            self._seed_step()
            return
        self.modules.eval()
        self._measure_averages()
        if self.centred:
            ids, _, embeddings = self.embed_all(self.valid_loader)
            self.embeddings = dict(zip(ids, embeddings, strict=True))
        if not learns(self.modules.classifier):
            self.centroids = self._class_centroids()

    def on_stage_end(self, stage: sb.Stage, stage_loss: float, epoch: int | None = None) -> None:
        """Log, and keep the best checkpoint by validation accuracy."""
        if stage == sb.Stage.TRAIN:
            self.train_stats: dict[str, float] = {"loss": stage_loss}
            if self.count:
                self.train_stats["accuracy"] = self.correct / self.count
            self.train_stats |= {name: sum(values) / len(values) for name, values in self.statistics.items()}
        elif stage == sb.Stage.VALID:
            results = self.validate()
            self.hparams.epoch_counter.update_metric(results[self.criterion])
            self.hparams.train_logger.log_stats(
                {"epoch": epoch, "lr": self.rate},
                train_stats=self.train_stats,
                valid_stats={"loss": stage_loss, **results},
            )
            if self._is_to_be_kept(results[self.criterion]):
                keys = {f"{self.hparams.epoch_counter.direction}_keys": [self.criterion]}
                self.checkpointer.save_and_keep_only(meta={**results, "epoch": epoch}, num_to_keep=1, **keys)

    def _is_to_be_kept(self, result: float) -> bool:
        """True of the best epochs, and of one a minute: on a GPU, an epoch may take no longer than to save it."""
        score = result if self.hparams.epoch_counter.direction == "max" else -result
        due = score >= self.best_score or time.monotonic() - self.saved > SAVE_SECONDS or rank_and_size()[1] > 1
        self.best_score = max(self.best_score, score)
        self.saved = time.monotonic() if due else self.saved
        return due

    def validate(self) -> dict[str, float]:
        """What an epoch's validation found."""
        return {"accuracy": self.correct / max(1, self.count)}


def learns(module: nn.Module) -> bool:
    """True where gradients train the module."""
    return any(True for _ in module.parameters())


def _inside(module: nn.Module) -> nn.Module:
    """What DDP and torch.compile have wrapped: its weights have the names that it is loaded by."""
    module = module.module if isinstance(module, DistributedDataParallel) else module
    return module._orig_mod if isinstance(module, OptimizedModule) else module


def _indices(names: Sequence[str], device: Any) -> Tensor:
    return torch.from_numpy(np.unique(names, return_inverse=True)[1]).to(device)


def _unit(embeddings: Tensor) -> Tensor:
    return functional.normalize(embeddings.detach().squeeze(1).float(), dim=-1)
