"""The Brain that trains an utterance encoder by a classifier, a metric loss or both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import speechbrain as sb
import torch
from speechbrain.nnet.schedulers import update_learning_rate
from torch import Tensor, nn
from torch.nn import functional

from ser_plugins.errors import InputError
from ser_plugins.training.augmentation import Augmentation
from ser_plugins.training.centering import SpeakerCentering
from ser_plugins.training.checkpoints import recover_best
from ser_plugins.training.modules import has_weights, set_epoch, unwrap, weight_groups
from ser_plugins.training.objective import Objective, accuracy, check_settings, nearest_centroids
from ser_plugins.training.weight_average import WeightAverage

DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(("metric_loss", "wav_augment", "feat_augment", "mixup", "weight_average", "lr_schedule")),
    **dict.fromkeys(("step_seeds", "cuda_graphs", "train_logger")),
    "classification_loss": functional.nll_loss,
    "speaker_normalization": "none",
    "backbone_lr_factor": 1.0,
    "frozen_epochs": 0,
    "classification_share": 0.0,
}


class EncoderBrain(sb.Brain):  # type: ignore[misc]
    """Train ``modules.embedding_model`` and, if it has weights, ``modules.classifier``.

    Batches hold ``signal`` and ``label`` [B, 1]; ``speaker`` and ``speaker_features`` where embeddings or features are
    speaker-normalised. Each key of ``hparams`` is optional:

    - ``metric_loss``: ``(embeddings [B, 1, E], labels [B]) -> loss``, as `ser_plugins.TripletLoss`;
    - ``classification_loss``: ``(log-probabilities [B, C], labels [B]) -> loss``, added to it where both apply;
      ``classification_share``: share of the epochs, at first, that have it alone, see `Objective`;
    - ``wav_augment``, ``feat_augment``: SpeechBrain's augmenters; ``mixup``: alpha of `Mixup`;
    - ``weight_average``: a `WeightAverage`, which validation uses and `load_best` keeps;
    - ``lr_schedule``: ``epoch -> learning rate``; ``backbone_lr_factor``: the backbone's share of it;
      ``frozen_epochs``: first epochs in which the backbone keeps its weights;
    - ``speaker_normalization``: "embeddings" and "features+embeddings" subtract from each embedding the
      mean of its speaker's;
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
        if self.hparams.classification_share and not has_weights(self.modules.classifier):
            raise InputError("classification_share needs a classifier that is trained; give the SVM a head, or give 0")
        losses = (self.hparams.metric_loss, self.hparams.classification_loss)
        self.objective = Objective(*losses, self.augmentation.mixup, self.hparams.classification_share)
        self.center = SpeakerCentering(self.hparams.speaker_normalization)
        self.average: WeightAverage = self.hparams.weight_average or WeightAverage(None)
        self.train_set: Any = ()
        self.epoch_counter: Any = None

    def compute_forward(self, batch: Any, stage: sb.Stage, augment: bool = False) -> Tensor:
        """Embed the utterances of a batch, [B, 1, E]; in training or with ``augment``, augmented."""
        batch = batch.to(self.device)
        train = stage == sb.Stage.TRAIN
        feats, lengths = self.augmentation.features(self.modules, batch, augment=train or augment)
        feats = self.augmentation.mixup(feats) if train and self.objective.classifies else feats
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
        loss, scores = self.objective(predictions, labels, self.modules.classifier, train=True)
        found = self.objective.statistics() | ({} if scores is None else {"accuracy": accuracy(scores, labels)})
        for name, value in found.items():
            self.statistics.setdefault(name, []).append(value)
        return loss

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Compute loss and accuracy of all validated utterances; before the metric loss begins, the head's accuracy."""
        embeddings, labels = self._join(self.validated)
        loss, scores = self.objective(embeddings, labels, self.network("classifier"))
        if scores is None:  # crops of the first training batches stand for their classes
            batches = list(islice(self.train_set, self.average.batches))
            parts = [(self.compute_forward(one, sb.Stage.VALID).float(), one.label.data.squeeze(1)) for one in batches]
            known = self._join([(*part, getattr(one, "speaker", [])) for part, one in zip(parts, batches, strict=True)])
            scores = nearest_centroids(embeddings, known[0], known[1].to(self.device), int(labels.max()) + 1)
        before = self.objective.classification_share and self.objective.classifies
        return {"loss": float(loss), "head_accuracy" if before else "accuracy": accuracy(scores, labels)}

    def _join(self, batches: Sequence[tuple[Tensor, Tensor, Sequence[str]]]) -> tuple[Tensor, Tensor]:
        """Join embeddings [B, 1, E] and labels [B] of batches; center the embeddings over all of them."""
        embeddings, labels, speakers = zip(*batches, strict=True)
        return self.center(torch.cat(embeddings), [name for names in speakers for name in names]), torch.cat(labels)

    @torch.no_grad()
    def embed(self, batches: Iterable[Any], augment: bool = False) -> tuple[list[str], Tensor]:
        """Embed utterances in evaluation mode, augmented or not; return their ids and embeddings [N, 1, E]."""
        self.modules.eval()
        ids: list[str] = []
        speakers: list[str] = []
        embeddings = []
        for batch in batches:
            embeddings.append(self.compute_forward(batch, sb.Stage.TEST, augment).float())
            # After the forward pass: an augmenter repeats labels as it did the last batch.
            copies = self.augmentation.repeat(torch.arange(len(batch.id))).tolist() if augment else range(len(batch.id))
            ids += [batch.id[i] for i in copies]
            speakers += [batch.speaker[i] for i in copies if hasattr(batch, "speaker")]
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
        self.validated: list[Any] = []
        if stage == sb.Stage.TRAIN and epoch is not None:
            self.statistics: dict[str, list[float]] = {}
            set_epoch(self.train_set, epoch)
            if self.hparams.classification_share:
                self.objective.begin_epoch(epoch, self._epochs())
            self._set_learning_rates(epoch)
            self._seed_step()
            return
        self.modules.eval()
        batches = (batch.to(self.device) for batch in self.train_set)
        with torch.no_grad():
            inputs = (self.augmentation.features(self.modules, batch, augment=False)[0] for batch in batches)
            self.average.update_statistics("embedding_model", unwrap(self.modules.embedding_model), inputs)

    def _epochs(self) -> int:
        """Epochs of the training; SpeechBrain's ``--debug`` ends it early."""
        epochs = int(getattr(self.epoch_counter, "limit", None) or len(self.epoch_counter))
        return min(epochs, self.debug_epochs) if self.debug else epochs

    def _set_learning_rates(self, epoch: int) -> None:
        if self.hparams.lr_schedule is None:
            return
        self.rate = self.hparams.lr_schedule(epoch)
        # A frozen backbone takes steps of size 0: DDP waits for the gradients of all weights.
        factor = self.hparams.backbone_lr_factor if epoch > self.hparams.frozen_epochs else 0.0
        for name, optimizer in self.optimizers_dict.items():
            update_learning_rate(optimizer, self.rate * (factor if name == "backbone" else 1.0))

    def _seed_step(self) -> None:
        self.seed(int(getattr(self.epoch_counter, "current", 0)) * 2**32 + self.step)

    def seed(self, step: int) -> None:
        """Seed all random generators for a step; the steps of epochs begin at 2^32."""
        if self.hparams.step_seeds is not None:
            self.hparams.step_seeds(step, self.hparams.wav_augment)

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
            if hasattr(self.epoch_counter, "update_metric") and self.criterion in results:
                self.epoch_counter.update_metric(results[self.criterion])
            if self.hparams.train_logger is not None:
                facts = {"epoch": epoch, **({"lr": self.rate} if self.hparams.lr_schedule else {})}
                self.hparams.train_logger.log_stats(facts, train_stats=self.train_stats, valid_stats=results)
            if self.checkpointer is not None:
                keys = {f"{self.best}_keys": [self.criterion]}
                self.checkpointer.save_and_keep_only(meta={**results, "epoch": epoch}, num_to_keep=1, **keys)

    def load_best(self) -> dict[str, Any]:
        """Load the best checkpoint; the modules become those that validation used, without wrappers.

        Returns
        -------
        dict
            What validation found at that epoch, and ``epoch``, its number.

        Raises
        ------
        InputError
            If no epoch was kept.
        """
        meta = {} if self.checkpointer is None else recover_best(self.checkpointer, self.criterion, self.best)
        self.modules.eval()
        for name in list(self.modules):
            self.modules[name] = unwrap(self.network(name))
        self.average.clear()
        if self.hparams.cuda_graphs is not None:
            self.hparams.cuda_graphs.clear()
        self.train_set = ()
        return meta
