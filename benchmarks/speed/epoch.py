"""An epoch of S5, all in: against its bare training steps, and against reading, resampling and trimming each time.

On a GPU (``--device cuda``) it is the mean of 39 epochs. Of the bare steps, on spectrograms that are on the device, the
rate is told, and the share that it is of the device's fastest product.
"""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ser_plugins.audio.speech import SpeechNormalizer, normalize_file
from ser_plugins.corpora.folds import fold_parts
from ser_plugins.training.brain import EncoderBrain
from ser_plugins.training.data import SAMPLE_RATE, crop
from ser_plugins.training.emotions import make_loaders, prepare_corpus
from ser_plugins.training.fit import train
from speed.corpus import recipe
from speed.harness import Row, ceiling, now


class TimedBrain(EncoderBrain):
    """Times its epochs from the first training batch to the end of validation; the first one does not count."""

    def on_stage_start(self, stage: Any, epoch: int | None = None) -> None:
        if stage.name == "TRAIN":
            self.start = now(self.device)
            if epoch == 1:
                self.trainings, self.epochs = [], []
        super().on_stage_start(stage, epoch)

    def on_stage_end(self, stage: Any, stage_loss: float, epoch: int | None = None) -> None:
        super().on_stage_end(stage, stage_loss, epoch)
        found = self.trainings if stage.name == "TRAIN" else self.epochs
        if epoch != 1:
            found.append(now(self.device) - self.start)

    @property
    def training(self) -> float:
        """Seconds of an epoch's training part."""
        return mean(self.trainings)

    @property
    def whole(self) -> float:
        """Seconds of an epoch."""
        return mean(self.epochs)


def timed(loaders: Any, tree: Any, options: Any) -> TimedBrain:
    """Train for two epochs, on a GPU for 40."""
    count = 40 if str(options["device"]).startswith("cuda") else 2
    with tempfile.TemporaryDirectory() as folder:
        long = {**tree, "number_of_epochs": count, "patience": count}
        brain, _ = train(long, options, Path(folder), None, TimedBrain, loaders)
    assert isinstance(brain, TimedBrain)
    return brain


def bare(brain: TimedBrain, batches: list[Any]) -> float:
    """Seconds of the training steps alone, on spectrograms that are on the device; a first pass does not count."""
    with torch.no_grad():
        feats = []
        for batch in batches:
            wavs, lengths = batch.to(brain.device).signal
            feats.append((brain.modules.mean_var_norm(brain.modules.compute_features(wavs), lengths), lengths))
    labels = [batch.label.data.squeeze(1).to(brain.device) for batch in batches]
    kind, precision = torch.device(brain.device).type, torch.bfloat16 if brain.precision == "bf16" else torch.float32
    brain.modules.train()
    for count in (4, len(feats)):
        start = now(brain.device)
        for (x, lengths), targets in zip(feats[:count], labels[:count], strict=True):
            with torch.autocast(kind, precision, enabled=precision == torch.bfloat16):
                loss = brain.hparams.metric_loss(brain.modules.embedding_model(x, lengths), targets)
            loss.backward()
            for optimizer in brain.optimizers_dict.values():
                optimizer.step()
                optimizer.zero_grad()
    return now(brain.device) - start


def share_of_peak(brain: TimedBrain, batches: list[Any], seconds: float) -> Row:
    """Utterances a second of the bare steps, and the share that they are of the device's fastest product."""
    count, precision = sum(len(batch.id) for batch in batches), torch.bfloat16
    wavs, lengths = batches[0].to(brain.device).signal
    with FlopCounterMode(display=False) as counter:
        feats = brain.modules.mean_var_norm(brain.modules.compute_features(wavs), lengths)
        brain.modules.embedding_model(feats, lengths).sum().backward()
    rate = counter.get_total_flops() / len(wavs) * count / seconds / 1e9
    peak = ceiling(precision if brain.precision == "bf16" else torch.float32, brain.device)
    return Row(
        f"bare steps, {count / seconds:.0f} utterances/s, beside the fastest product",
        f"{rate:.0f} GFLOP/s",
        f"{peak:.0f} GFLOP/s",
        rate / peak,
    )


def usual_loaders(brain: Any, hparams: Any, parts: Any, normalizer: SpeechNormalizer) -> Any:
    """Loaders that read, resample and trim each recording each time, as a SpeechBrain recipe's pipeline does."""
    train_loader, valid_loader = make_loaders(brain, hparams, parts)
    for loader, table, cut in ((train_loader, parts["train"], True), (valid_loader, parts["valid"], False)):
        paths = dict(zip(table["id"].astype(str), table["path"], strict=True))

        def signal(name: str, paths: Any = paths, cut: bool = cut) -> torch.Tensor:
            samples = normalize_file(paths[name], normalizer).numpy()
            if cut:
                samples = crop(samples, round(hparams["crop_seconds"] * SAMPLE_RATE), float(torch.rand(())))
            return torch.from_numpy(samples.copy())

        loader.dataset.pipeline.key_to_node.pop("signal", None)
        loader.dataset.add_dynamic_item(signal, takes="id", provides="signal")
    return train_loader, valid_loader


def run() -> Iterator[Row]:
    """Measure."""
    own = recipe()
    corpus = prepare_corpus(own, own.read_corpus())
    parts = {name: table for name, table in fold_parts(corpus, 1).items() if name != "test"}
    tree = {**own.tree, "labels": list(corpus.labels)}
    brain = timed(partial(make_loaders, parts=parts), tree, own.options)
    loader, _ = make_loaders(brain, tree_values(brain), parts)
    batches = list(loader)
    steps = bare(brain, batches)
    yield share_of_peak(brain, batches, steps)
    yield Row(
        "epoch of S5 with validation against its bare steps",
        f"{brain.whole:.1f} s",
        f"{steps:.1f} s",
        brain.whole / steps,
        most=1.1 if torch.device(brain.device).type == "cpu" else 1.15,
    )
    yield Row(
        "its training part alone against its bare steps",
        f"{brain.training:.1f} s",
        f"{steps:.1f} s",
        brain.training / steps,
    )
    usual = timed(partial(usual_loaders, parts=parts, normalizer=own.normalizer()), tree, own.options)
    yield Row(
        "epoch of S5 against reading and trimming each time",
        f"{brain.whole:.1f} s",
        f"{usual.whole:.1f} s",
        usual.whole / brain.whole,
        least=3,
    )


def tree_values(brain: TimedBrain) -> dict[str, Any]:
    """Hyper-parameters of a brain, as its loaders take them."""
    return vars(brain.hparams)
