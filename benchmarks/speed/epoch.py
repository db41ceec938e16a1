"""An epoch of S5: against its bare passes, and against reading, resampling and trimming the audio each time.

The bare passes are forward, loss and backward of spectrograms that are on the device. A GPU (``--device cuda``) trains
40 epochs, and its bare passes also run as CUDA graphs. A time of several epochs is their mean without the first.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataloader import SaveableDataLoader
from speechbrain.dataio.dataset import DynamicItemDataset

from ser_plugins.audio.reading import SAMPLE_RATE
from ser_plugins.audio.speech import SpeechNormalizer, normalize_file
from ser_plugins.configuration import Tree
from ser_plugins.corpora.folds import fold_parts
from ser_plugins.training.brain import EncoderBrain
from ser_plugins.training.cross_validation import Parts, fold_tree, make_batches, make_loaders, prepare_corpus
from ser_plugins.training.data import crop
from ser_plugins.training.run import begin, fit, make_brain
from speed.corpus import on_gpu, recipe
from speed.harness import Row, ceiling, now, operations


class TimedBrain(EncoderBrain):
    """Time each epoch from the first training batch to the end of training and of validation."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seconds: dict[str, list[float]] = {"TRAIN": [], "VALID": []}

    def on_stage_start(self, stage: Any, epoch: int | None = None) -> None:
        if stage.name == "TRAIN":
            self.start = now(self.device)
        super().on_stage_start(stage, epoch)

    def on_stage_end(self, stage: Any, stage_loss: float, epoch: int | None = None) -> None:
        super().on_stage_end(stage, stage_loss, epoch)
        self.seconds[stage.name].append(now(self.device) - self.start)

    def mean_until(self, stage: str) -> float:
        """Return the mean seconds of an epoch until the end of a stage, without the first of several epochs."""
        return mean(self.seconds[stage][1:] or self.seconds[stage])


def prepared_fold() -> tuple[Tree, Any, Parts]:
    """Prepare the audio of fold 1; return the run's YAML, the run options and the tables of the parts."""
    own = recipe()
    corpus = prepare_corpus(own, own.read_corpus())
    parts = fold_parts(corpus, 1)
    return fold_tree(own.tree, corpus, parts, 1), own.options, parts


def train(tree: Tree, options: Any, parts: Parts, epochs: int, loaders: Any = make_loaders) -> TimedBrain:
    """Train for some epochs, as recipes/train.py does."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hparams = begin({**tree, "number_of_epochs": epochs, "patience": None}, folder)
        brain = make_brain(TimedBrain, hparams, options, folder)
        fit(brain, *loaders(brain, hparams, parts))
    return brain


def bare(brain: TimedBrain, batches: list[Any], encode: Callable[..., Any]) -> float:
    """Return the seconds of an epoch's bare passes: the second of two runs, on a GPU the median of nine."""
    weights = list(brain.modules.embedding_model.parameters())
    with torch.no_grad():
        feats = [features(brain, batch) for batch in batches]
    labels = [batch.label.data.squeeze(1).to(brain.device) for batch in batches]
    brain.modules.train()
    seconds = []
    for count in (4, *[len(feats)] * (9 if brain.device_type == "cuda" else 1)):
        start = now(brain.device)
        for (x, lengths), targets in zip(feats[:count], labels[:count], strict=True):
            with brain.training_ctx:
                loss = brain.hparams.metric_loss(encode(x, lengths), targets)
            loss.backward()
            for weight in weights:
                weight.grad = None
        seconds.append(now(brain.device) - start)
    return median(seconds[1:])


def features(brain: TimedBrain, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the normalised spectrograms and relative lengths of a batch."""
    wavs, lengths = batch.to(brain.device).signal
    return brain.modules.mean_var_norm(brain.modules.compute_features(wavs), lengths), lengths


def share_of_peak(brain: TimedBrain, batches: list[Any], seconds: float, name: str) -> Row:
    """Compare the rate of the bare passes with the device's fastest product."""
    count = sum(len(batch.id) for batch in batches)
    feats, lengths = features(brain, batches[0])
    gflop = operations(lambda: brain.modules.embedding_model(feats, lengths).sum().backward()) / len(feats)
    rate = gflop * count / seconds
    peak = ceiling(torch.bfloat16 if brain.precision == "bf16" else torch.float32, brain.device)
    case = f"{name}, {count / seconds:.0f} utterances/s, against the fastest product"
    return Row(case, f"{rate:.0f} GFLOP/s", f"{peak:.0f} GFLOP/s", rate / peak)


def usual_loaders(brain: EncoderBrain, hparams: Any, parts: Parts, normalizer: SpeechNormalizer) -> Any:
    """Make loaders that read, resample and trim each recording each time, as a SpeechBrain recipe's pipeline does."""
    classes = list(hparams["labels"])

    def make(part: str, crop_seconds: float | None, **options: Any) -> SaveableDataLoader:
        def signal(path: str) -> torch.Tensor:
            samples = normalize_file(path, normalizer)
            if crop_seconds is None:
                return samples
            cut = crop(samples.numpy(), round(crop_seconds * SAMPLE_RATE), float(torch.rand(())))
            return torch.from_numpy(cut.copy())

        table = parts[part].astype({"id": str, "path": str}).set_index("id")
        dataset = DynamicItemDataset(table[["path", "emotion"]].to_dict("index"))
        dataset.add_dynamic_item(signal, takes="path", provides="signal")
        dataset.add_dynamic_item(lambda name: torch.tensor([classes.index(name)]), takes="emotion", provides="label")
        dataset.set_output_keys(["id", "signal", "label"])
        return SaveableDataLoader(dataset, collate_fn=PaddedBatch, **options)

    train_loader = make("train", hparams["crop_seconds"], batch_sampler=make_batches(hparams, parts))
    return train_loader, make("valid", None, batch_size=hparams["batch_size"])


def run() -> Iterator[Row]:
    """Measure."""
    tree, options, parts = prepared_fold()
    cuda = on_gpu()
    brain = train(tree, options, parts, 40 if cuda else 2)
    hparams = vars(brain.hparams)
    batches = list(make_loaders(brain, hparams, parts)[0])
    encoder = brain.modules.embedding_model
    ways = {"bare passes": encoder}
    if cuda:
        ways["the same as CUDA graphs"] = partial(hparams["cuda_graphs"], encoder)
    training, whole = brain.mean_until("TRAIN"), brain.mean_until("VALID")
    for name, way in ways.items():
        seconds = bare(brain, batches, way)
        yield share_of_peak(brain, batches, seconds, name)
        most = None if way is not encoder else 1.15 if cuda else 1.1
        for part, time, target in (("epoch of S5 with validation", whole, most), ("its training part", training, None)):
            yield Row(f"{part} against {name}", f"{time:.2f} s", f"{seconds:.2f} s", time / seconds, most=target)
    loaders = partial(usual_loaders, normalizer=recipe().normalizer())
    usual = train(tree, options, parts, 1 if cuda else 2, loaders).mean_until("VALID")
    case = "epoch of S5 against reading and trimming each time"
    yield Row(case, f"{whole:.2f} s", f"{usual:.2f} s", usual / whole, least=3)
