"""The Brain that trains an utterance encoder by a classifier, a metric loss or both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import speechbrain as sb
import torch
from speechbrain.nnet.schedulers import update_learning_rate
from speechbrain.utils.distributed import ddp_barrier
from torch import Tensor, nn
from torch.nn import functional

from ser_plugins.distributed import total
from ser_plugins.errors import InputError
from ser_plugins.training.augmentation import Augmentation
from ser_plugins.training.centering import SpeakerCentering
from ser_plugins.training.mixup import Mixup
from ser_plugins.training.modules import has_weights, set_epoch, unwrap, weight_groups
from ser_plugins.training.weight_average import WeightAverage

CHUNK = 512  # utterances of a metric loss in validation: its memory grows with their square
DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(("metric_loss", "wav_augment", "feat_augment", "mixup", "weight_average", "lr_schedule")),
    **dict.fromkeys(("step_seeds", "cuda_graphs", "train_logger")),
    "classification_loss": functional.nll_loss,
    "speaker_normalization": "none",
    "backbone_lr_factor": 1.0,
    "frozen_epochs": 0,
}


class EncoderBrain(sb.Brain):  # type: ignore[misc]
    """Train ``modules.embedding_model`` and, if it has weights, ``modules.classifier``.

    Batches hold ``signal`` and ``label`` [B, 1]; ``speaker`` and ``speaker_features`` where embeddings or features are
    speaker-normalised. Each key of ``hparams`` is optional:

    - ``metric_loss``: ``(embeddings [B, 1, E], labels [B]) -> loss``, as `ser_plugins.TripletLoss`;
    - ``classification_loss``: ``(log-probabilities [B, C], labels [B]) -> loss``, added to it where both apply;
    - ``wav_augment``, ``feat_augment``: SpeechBrain's augmenters; ``mixup``: alpha of `Mixup`;
    - ``weight_average``: a `WeightAverage`, which validation uses and `load_best` keeps;
    - ``lr_schedule``: ``epoch -> learning rate``; ``backbone_lr_factor``: the backbone's share of it;
      ``frozen_epochs``: first epochs in which the backbone keeps its weights;
    - ``speaker_normalization``: "features+embeddings" subtracts from each embedding the mean of its speaker's;
    - ``step_seeds``: a `StepSeeds`; ``cuda_graphs``: an `EncoderGraphs`; ``train_logger``: SpeechBrain's.

    Validation measures the classifier's accuracy, or that of the nearest class centroid where no classifier is trained.

    Raises
    ------
    InputError
        If the settings exclude each other.
    """

    criterion, best = "accuracy", "max"

    def __init__(
        self,
        modules: Mapping[str, nn.Module] | None = None,
        opt_class: Any = None,
        hparams: Mapping[str, Any] | None = None,
        run_opts: Any = None,
        checkpointer: Any = None,
    ) -> None:
        check_settings(hparams or {})
        super().__init__(modules, opt_class, {**DEFAULTS, **(hparams or {})}, run_opts, checkpointer)
        self.augmentation = Augmentation(self.hparams.wav_augment, self.hparams.feat_augment, self.hparams.mixup)
        self.center = SpeakerCentering(self.hparams.speaker_normalization)
        self.average: WeightAverage = self.hparams.weight_average or WeightAverage(None)
        self.train_set: Any = ()
        self.epoch_counter: Any = None

    def compute_forward(self, batch: Any, stage: sb.Stage) -> Tensor:
        """Embed the utterances of a batch, [B, 1, E]; in training, augmented."""
        batch = batch.to(self.device)
        train = stage == sb.Stage.TRAIN
        feats, lengths = self.augmentation.features(self.modules, batch, augment=train)
        if train and self.hparams.cuda_graphs is not None and self.grad_accumulation_factor == 1:
            embeddings = self.hparams.cuda_graphs(self.modules.embedding_model, feats, lengths)
        else:
            embeddings = self.network("embedding_model")(feats, lengths)
        if not (train and self.center.active):
            return embeddings  # type: ignore[no-any-return]
        return self.center(embeddings, batch.speaker, self.augmentation.repeat)

    def network(self, name: str) -> nn.Module:
        """Return a module; outside of training, with the average of its weights if there is one."""
        averaged = name in self.average.networks and not self.modules.training
        network: nn.Module = self.average.networks[name].module if averaged else self.modules[name]
        return network

    def compute_objectives(self, predictions: Tensor, batch: Any, stage: sb.Stage) -> Tensor:
        """Compute the loss of a training batch; keep a validation batch for `validate`, which needs all of them."""
        labels = batch.label.data.squeeze(1).to(self.device)
        if stage != sb.Stage.TRAIN:
            self.validated.append((predictions.detach().float(), labels, getattr(batch, "speaker", [])))
            return torch.zeros((), device=self.device)
        labels = self.augmentation.repeat(labels)
        loss, scores = self.losses(predictions, labels, train=True)
        found = dict(getattr(self.hparams.metric_loss, "statistics", {}))
        if scores is not None:
            found["accuracy"] = accuracy(scores, labels)
        for name, value in found.items():
            self.statistics.setdefault(name, []).append(float(value))
        return loss

    def losses(self, embeddings: Tensor, labels: Tensor, train: bool = False) -> tuple[Tensor, Tensor | None]:
        """Sum the losses that apply; return the classifier's log-probabilities [B, C] as well, if it is trained."""
        loss = torch.zeros((), device=embeddings.device)
        if self.hparams.metric_loss is not None:
            size = len(embeddings) if train else CHUNK
            parts = zip(torch.split(embeddings, size), torch.split(labels, size), strict=True)
            loss = loss + torch.stack([self.hparams.metric_loss(*part) for part in parts]).mean()
        if not has_weights(self.modules.classifier):
            return loss, None
        scores = self.network("classifier")(embeddings, *((labels,) if train else ())).squeeze(1)
        mixup = self.augmentation.mixup if train else Mixup(None)
        return loss + mixup.loss(self.hparams.classification_loss, scores, labels), scores

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Compute loss and accuracy of all validated utterances."""
        embeddings, labels, speakers = zip(*self.validated, strict=True)
        together, targets = torch.cat(embeddings), torch.cat(labels)
        together = self.center(together, [name for names in speakers for name in names])
        loss, scores = self.losses(together, targets)
        if scores is None:
            scores = _unit(together) @ self.class_centroids(int(targets.max()) + 1).T
        return {"loss": float(loss), "accuracy": accuracy(scores, targets)}

    def class_centroids(self, n_classes: int) -> Tensor:
        """Compute directions of the classes, [C, E], from crops of the first training batches."""
        batches = list(islice(self.train_set, self.average.batches))
        labels = torch.cat([batch.label.data.squeeze(1) for batch in batches]).to(self.device)
        embeddings = torch.cat([self.compute_forward(batch, sb.Stage.VALID).float() for batch in batches])
        embeddings = self.center(embeddings, [name for batch in batches for name in getattr(batch, "speaker", [])])
        members = functional.one_hot(labels, max(n_classes, int(labels.max()) + 1)).float()
        return functional.normalize(total(members.T @ _unit(embeddings)), dim=-1)

    @torch.no_grad()
    def embed(self, batches: Iterable[Any]) -> tuple[list[str], Tensor]:
        """Embed whole utterances in evaluation mode; return their ids and embeddings [N, 1, E]."""
        self.modules.eval()
        ids: list[str] = []
        speakers: list[str] = []
        embeddings = []
        for batch in batches:
            ids += batch.id
            speakers += getattr(batch, "speaker", [])
            embeddings.append(self.compute_forward(batch, sb.Stage.TEST).float())
        return ids, self.center(torch.cat(embeddings), speakers)

    def fit(self, epoch_counter: Any, train_set: Any, valid_set: Any = None, *args: Any, **kwargs: Any) -> None:
        """Train, as SpeechBrain's Brain does."""
        self.epoch_counter, self.train_set = epoch_counter, train_set
        super().fit(epoch_counter, train_set, valid_set, *args, **kwargs)

    def init_optimizers(self) -> None:
        """Make an optimizer of the backbone and one of the rest, and begin the average of the weights."""
        self.optimizers_dict = {name: self.opt_class(group) for name, group in weight_groups(self.modules).items()}
        self.average.start({name: unwrap(module) for name, module in self.modules.items()})
        if self.checkpointer is not None:
            for name, optimizer in self.optimizers_dict.items():
                self.checkpointer.add_recoverable(f"{name}_optimizer", optimizer)
            for name, average in self.average.networks.items():
                self.checkpointer.add_recoverable(f"{name}_average", average)

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Set epoch, learning rates and seed; before validation, update the averages' batch-norm statistics."""
        self.validated: list[tuple[Tensor, Tensor, Sequence[str]]] = []
        if stage == sb.Stage.TRAIN and epoch is not None:
            self.statistics: dict[str, list[float]] = {}
            set_epoch(self.train_set, epoch)
            self._set_learning_rates(epoch)
            self._seed_step()
            return
        self.modules.eval()
        batches = (batch.to(self.device) for batch in self.train_set)
        with torch.no_grad():
            inputs = (self.augmentation.features(self.modules, batch, augment=False)[0] for batch in batches)
            self.average.update_statistics("embedding_model", unwrap(self.modules.embedding_model), inputs)

    def _set_learning_rates(self, epoch: int) -> None:
        if self.hparams.lr_schedule is None:
            return
        self.rate = self.hparams.lr_schedule(epoch)
        # A frozen backbone takes steps of size 0: DDP waits for the gradients of all weights.
        factor = self.hparams.backbone_lr_factor if epoch > self.hparams.frozen_epochs else 0.0
        for name, optimizer in self.optimizers_dict.items():
            update_learning_rate(optimizer, self.rate * (factor if name == "backbone" else 1.0))

    def _seed_step(self) -> None:
        if self.hparams.step_seeds is not None:
            epoch = int(getattr(self.epoch_counter, "current", 0))
            self.hparams.step_seeds(epoch * 2**32 + self.step, self.hparams.wav_augment)

    def on_fit_batch_end(self, batch: Any, outputs: Tensor, loss: Tensor, should_step: bool) -> None:
        """Update the average after a step, and seed the next one."""
        if should_step:
            self.average.update()
        self._seed_step()

    def on_stage_end(self, stage: sb.Stage, stage_loss: float, epoch: int | None = None) -> None:
        """Log an epoch, and keep the best checkpoint by the validation result."""
        if stage == sb.Stage.TRAIN:
            means = {name: sum(values) / len(values) for name, values in self.statistics.items()}
            self.train_stats: dict[str, float] = {"loss": stage_loss, **means}
        elif stage == sb.Stage.VALID:
            results = self.validate()
            if hasattr(self.epoch_counter, "update_metric"):
                self.epoch_counter.update_metric(results[self.criterion])
            if self.hparams.train_logger is not None:
                facts = {"epoch": epoch, **({"lr": self.rate} if self.hparams.lr_schedule else {})}
                self.hparams.train_logger.log_stats(facts, train_stats=self.train_stats, valid_stats=results)
            if self.checkpointer is not None:
                keys = {f"{self.best}_keys": [self.criterion]}
                self.checkpointer.save_and_keep_only(meta={**results, "epoch": epoch}, num_to_keep=1, **keys)

    def load_best(self) -> dict[str, Any]:
        """Load the best checkpoint; the modules become those that validation used.

        Returns
        -------
        dict
            What validation found at that epoch, and ``epoch``, its number.

        Raises
        ------
        InputError
            If no epoch was kept.
        """
        meta: dict[str, Any] = {}
        if self.checkpointer is not None:
            found = self.checkpointer.recover_if_possible(**{f"{self.best}_key": self.criterion})
            if found is None:
                remedy = "--debug_persistently, too" if self.debug else "--number_of_epochs 1 or more"
                raise InputError(f"{self.checkpointer.checkpoints_dir}: no epoch was kept; give {remedy}")
            meta = dict(found.meta)
            self.checkpointer.recoverables.clear()  # they hold the audio and the Brain itself
        ddp_barrier()  # all processes have read the checkpoint, which may be deleted now
        self.modules.eval()
        for name in list(self.modules):
            self.modules[name] = unwrap(self.network(name))
        self.average.clear()
        if self.hparams.cuda_graphs is not None:
            self.hparams.cuda_graphs.clear()
        self.train_set = ()
        return meta


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Share of ``scores`` [B, C] that are highest for the label [B]."""
    return float((scores.argmax(-1) == labels).float().mean())


def check_settings(hparams: Mapping[str, Any]) -> None:
    """Check settings of a Brain before anything is trained.

    Raises
    ------
    InputError
        If one is of no use, or two exclude each other; the message names them.
    """
    given = {**DEFAULTS, **hparams}
    try:
        Mixup(given["mixup"])
        centered = SpeakerCentering(given["speaker_normalization"]).active
    except ValueError as error:
        raise InputError(str(error)) from error
    if not (given["lr_schedule"] is None or callable(given["lr_schedule"])):
        remedy = "give !new:ser_plugins.training.StepSchedule or CosineSchedule"
        raise InputError(f"lr_schedule: {given['lr_schedule']!r} is no schedule; {remedy}")
    if given["mixup"] is not None and given["metric_loss"] is not None:
        raise InputError("mixup mixes two labels, and a metric loss needs one of each utterance; give --mixup null")
    if given["mixup"] is not None and centered:
        raise InputError("mixup mixes speakers, and the mean embedding of each is subtracted; give --mixup null")
    for name in ("backbone_lr_factor", "frozen_epochs"):
        value = given[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise InputError(f"{name}: {value!r} is not allowed; give a number of at least 0")


def _unit(embeddings: Tensor) -> Tensor:
    return functional.normalize(embeddings.squeeze(1).float(), dim=-1)
