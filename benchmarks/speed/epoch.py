"""An epoch of S5, all in: against its bare passes, and against reading, resampling and trimming each time.

On a GPU (``--device cuda``) it is the mean of 39 epochs, and is compared with the passes as CUDA graphs, too. Of the
bare passes, forward, loss and backward of spectrograms that are on the device, the rate is told, and the share that it
is of the device's fastest product.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from ser_plugins.training.emotions import make_loaders, prepare_corpus
from ser_plugins.training.fit import train
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataloader import SaveableDataLoader
from torch.utils.flop_counter import FlopCounterMode

from ser_plugins.audio.speech import SpeechNormalizer, normalize_file
from ser_plugins.corpora.folds import fold_parts
from ser_plugins.training.brain import EncoderBrain
from ser_plugins.training.data import SAMPLE_RATE, crop, make_dataset
from ser_plugins.training.graphs import EncoderGraphs
from speed.corpus import on_gpu, recipe
from speed.harness import Row, ceiling, now


class TimedBrain(EncoderBrain):
    """Times its epochs from the first training batch to the end of validation; of several, the first does not count."""

    def on_stage_start(self, stage: Any, epoch: int | None = None) -> None:
        if stage.name == "TRAIN":
            self.start = now(self.device)
            if epoch is not None and epoch <= 2:
                self.trainings, self.epochs = [], []
        super().on_stage_start(stage, epoch)

    def on_stage_end(self, stage: Any, stage_loss: float, epoch: int | None = None) -> None:
        super().on_stage_end(stage, stage_loss, epoch)
        found = self.trainings if stage.name == "TRAIN" else self.epochs
        found.append(now(self.device) - self.start)

    @property
    def training(self) -> float:
        """Seconds of an epoch's training part."""
        return mean(self.trainings)

    @property
    def whole(self) -> float:
        """Seconds of an epoch."""
        return mean(self.epochs)


def timed(loaders: Any, tree: Any, options: Any, epochs: int = 2) -> TimedBrain:
    """Train for some epochs."""
    with tempfile.TemporaryDirectory() as folder:
        long = {**tree, "number_of_epochs": epochs, "patience": epochs}
        brain, _ = train(long, options, Path(folder), None, TimedBrain, loaders)
    assert isinstance(brain, TimedBrain)
    return brain


def bare(brain: TimedBrain, batches: list[Any], encoder: Callable[..., Any]) -> float:
    """Seconds of an epoch's forward and backward passes alone, on spectrograms that are on the device.

    The second of two times; on a GPU of more, whose median is taken.
    """
    weights = list(brain.modules.embedding_model.parameters())
    with torch.no_grad():
        feats = []
        for batch in batches:
            wavs, lengths = batch.to(brain.device).signal
            feats.append((brain.modules.mean_var_norm(brain.modules.compute_features(wavs), lengths), lengths))
    labels = [batch.label.data.squeeze(1).to(brain.device) for batch in batches]
    brain.modules.train()
    seconds = []
    for count in (4, *[len(feats)] * (9 if brain.device_type == "cuda" else 1)):
        start = now(brain.device)
        for (x, lengths), targets in zip(feats[:count], labels[:count], strict=True):
            with brain.training_ctx:
                loss = brain.hparams.metric_loss(encoder(x, lengths), targets)
            loss.backward()
            for weight in weights:
                weight.grad = None
        seconds.append(now(brain.device) - start)
    return median(seconds[1:])


def share_of_peak(brain: TimedBrain, batches: list[Any], seconds: float, name: str) -> Row:
    """Utterances a second of the bare passes, and the share that they are of the device's fastest product."""
    count = sum(len(batch.id) for batch in batches)
    wavs, lengths = batches[0].to(brain.device).signal
    with FlopCounterMode(display=False) as counter:
        feats = brain.modules.mean_var_norm(brain.modules.compute_features(wavs), lengths)
        brain.modules.embedding_model(feats, lengths).sum().backward()
    rate = counter.get_total_flops() / len(wavs) * count / seconds / 1e9
    peak = ceiling(torch.bfloat16 if brain.precision == "bf16" else torch.float32, brain.device)
    return Row(
        f"{name}, {count / seconds:.0f} utterances/s, beside the fastest product",
        f"{rate:.0f} GFLOP/s",
        f"{peak:.0f} GFLOP/s",
        rate / peak,
    )


def usual_loaders(brain: Any, hparams: Any, parts: Any, normalizer: SpeechNormalizer) -> Any:
    """Loaders that read, resample and trim each recording each time, as a SpeechBrain recipe's pipeline does."""
    train_loader, valid_loader = make_loaders(brain, hparams, parts)
    options = {"batch_sampler": train_loader.batch_sampler}, {"batch_size": valid_loader.batch_size}
    found = []
    for option, table, cut in zip(options, (parts["train"], parts["valid"]), (True, False), strict=True):
        paths = dict(zip(table["id"].astype(str), table["path"], strict=True))

        def signal(name: str, paths: Any = paths, cut: bool = cut) -> torch.Tensor:
            samples = normalize_file(paths[name], normalizer).numpy()
            if cut:
                samples = crop(samples, round(hparams["crop_seconds"] * SAMPLE_RATE), float(torch.rand(())))
            return torch.from_numpy(samples.copy())

        dataset = make_dataset(table, hparams["column"], hparams["labels"])
        dataset.pipeline.key_to_node.pop("signal", None)
        dataset.add_dynamic_item(signal, takes="id", provides="signal")
        found.append(SaveableDataLoader(dataset, collate_fn=PaddedBatch, **option))
    return tuple(found)


def run() -> Iterator[Row]:
    """Measure."""
    own = recipe()
    corpus = prepare_corpus(own, own.read_corpus())
    parts = {name: table for name, table in fold_parts(corpus, 1).items() if name != "test"}
    tree = {**own.tree, "labels": list(corpus.labels)}
    cuda = on_gpu()
    brain = timed(partial(make_loaders, parts=parts), tree, own.options, 40 if cuda else 2)
    loader, _ = make_loaders(brain, vars(brain.hparams), parts)
    batches = list(loader)
    encoder = brain.modules.embedding_model
    ways = {"bare passes": encoder, **({"the same as CUDA graphs": EncoderGraphs(encoder)} if cuda else {})}
    for name, way in ways.items():
        seconds = bare(brain, batches, way)
        yield share_of_peak(brain, batches, seconds, name)
        most = None if way is not encoder else 1.15 if cuda else 1.1
        parts_of_it = ("epoch of S5 with validation", brain.whole, most), ("its training part", brain.training, None)
        for part, whole, mark in parts_of_it:
            yield Row(f"{part} beside {name}", f"{whole:.2f} s", f"{seconds:.2f} s", whole / seconds, most=mark)
    usual = timed(partial(usual_loaders, parts=parts, normalizer=own.normalizer()), tree, own.options, 1 if cuda else 2)
    yield Row(
        "epoch of S5 against reading and trimming each time",
        f"{brain.whole:.2f} s",
        f"{usual.whole:.2f} s",
        usual.whole / brain.whole,
        least=3,
    )
