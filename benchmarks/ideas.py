"""What each part of S6 brings, on validation actors; no test fold is read.

python benchmarks/ideas.py [IDEA …] [--folds 1,2,3] --corpus ravdess --data_folder FOLDER [--key value …] trains each
idea on each fold and adds the results to benchmarks/results/ideas.md and ideas.json; of an idea that is run again, with
whatever options, the table has the newest result and ideas.json all of them, with their commands.
"""

import argparse
import json
import logging
import re
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock
from ruamel.yaml import YAML
from ser_plugins.training.emotions import check_fold, encoder_source, make_loaders, prepare_corpus
from ser_plugins.training.fit import commit, train
from speed.harness import command

from ser_plugins.corpora.folds import fold_parts
from ser_plugins.files import atomic_write
from ser_plugins.training.brain import EncoderBrain
from ser_plugins.training.recipe import Recipe

RESULTS = Path("benchmarks/results/ideas.json")
PARTS = {
    "constraint": ("metric_loss",),
    "smoothing": ("classification_loss",),
    "cosine": ("opt_class", "lr_schedule"),
    "Mel bins": ("n_bins", "dropped_bins", "compute_features"),
}
MARGIN = """
classifier: !new:ser_plugins.MarginClassifier
    input_size: !ref <embedding_size>
    n_classes: !ref <n_classes>
"""
DROPOUT = """
classifier: !new:ser_plugins.SoftmaxClassifier
    input_size: !ref <embedding_size>
    n_classes: !ref <n_classes>
    dropout: 0.5
"""
SPEED_AND = """
wav_augment: !new:speechbrain.augment.augmenter.Augmenter
    min_augmentations: 2
    augment_prob: 0.8
    augmentations:
        - !new:speechbrain.augment.time_domain.SpeedPerturb
            orig_freq: 16000
            speeds: [85, 90, 95, 105, 110, 115]
"""
NOISE = f"""{SPEED_AND}
        - !new:speechbrain.augment.time_domain.AddNoise
            snr_low: 10
            snr_high: 40
"""
# At the same tempo 18, 19, 21 or 22 twentieths as high: a sample rate of 20 makes a short resampling filter of that.
PITCH = f"""{SPEED_AND}
        - !new:speechbrain.augment.augmenter.Augmenter
            min_augmentations: 1
            max_augmentations: 1
            shuffle_augmentations: True
            augmentations:
                - !new:torchaudio.transforms.PitchShift
                    sample_rate: 20
                    n_steps: -1.82
                - !new:torchaudio.transforms.PitchShift
                    sample_rate: 20
                    n_steps: -0.88
                - !new:torchaudio.transforms.PitchShift
                    sample_rate: 20
                    n_steps: 0.85
                - !new:torchaudio.transforms.PitchShift
                    sample_rate: 20
                    n_steps: 1.66
"""
CHANGES = {
    "no speed": "wav_augment: null",
    "no augmentation": "wav_augment: null\nfeat_augment: null",
    "triplet": "metric_loss: !new:ser_plugins.TripletLoss\n    margin: !ref <alpha>",
    "graded": "metric_loss: !new:ser_plugins.GradedTripletLoss\n    labels: !ref <labels>",
    "angular margin": MARGIN,
    "no ghosts": "ghost_clusters: 0",
    "crops of 3 s": "crop_seconds: 3.0",
    "slow backbone": "backbone_lr_factor: 0.3",
    "lr 0.0003": "lr: 0.0003",
    "no EMA": "ema_decay: null",
    "mixup": "mixup: 0.2",
    "dropout": DROPOUT,
    "noise": NOISE,
    "pitch": PITCH,
}
IDEAS = [
    "S1",
    "S1 + cosine",
    "S1 + Mel bins",
    *(f"S1, {change}" for change in ("no augmentation", "no EMA", "mixup", "dropout")),
    "S3",
    "S3, no augmentation",
    "S5",
    "S5, lr 0.0003",
    "S6",
    *(f"S3 + {part}" for part in PARTS),
    *(f"S6 - {part}" for part in PARTS),
    *(f"S6, {change}" for change in CHANGES),
    "S7",
    "S8",
    "S8, pitch",
    *(f"S7, {change}" for change in ("no speed", "slow backbone", "crops of 3 s", "dropout", "mixup")),
]


def recipe_of(idea: str, arguments: list[str]) -> Recipe:
    """A strategy with parts of S6, S6 without one, or either with a change."""
    strategy, *parts = re.split(r" [+-] |, ", idea)
    recipe = Recipe.from_arguments([f"hparams/{strategy.lower()}.yaml", *arguments])
    other = Recipe.from_arguments([f"hparams/{'s3' if strategy == 'S6' else 's6'}.yaml", *arguments]).tree
    for part in parts:
        recipe.tree |= YAML().load(CHANGES[part]) if part in CHANGES else {key: other[key] for key in PARTS[part]}
    return recipe


def valid_accuracies(recipe: Recipe, fold: int) -> tuple[float, float]:
    """Train on a fold; validation accuracy of the best epoch, and of the last, which no luck has chosen."""
    corpus = recipe.read_corpus()
    check_fold(recipe.tree, corpus, fold)
    parts = fold_parts(prepare_corpus(recipe, corpus), fold)
    del parts["test"]
    tree = {**recipe.tree, "labels": list(corpus.labels), "fold": fold}
    with tempfile.TemporaryDirectory() as folder:
        source, _ = encoder_source(recipe, tree, parts["train"], Path(folder))
        brain, _ = train(tree, recipe.options, Path(folder), source, EncoderBrain, partial(make_loaders, parts=parts))
    return float(brain.best["accuracy"]), brain.validate()["accuracy"]


def keep(idea: str, fold: int, accuracy: float, last: float) -> None:
    """Add a result to the file, which other processes may write to as well."""
    with FileLock(RESULTS.with_suffix(".lock")):
        found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else []
        about = {"command": command(sys.argv), "commit": commit()}
        found.append({"idea": idea, "fold": fold, "accuracy": accuracy, "last": last, **about})
        atomic_write(RESULTS, json.dumps(found, indent=2) + "\n")
        atomic_write(RESULTS.with_suffix(".md"), table(found))


def table(found: list[dict[str, Any]]) -> str:
    """One row an idea."""
    folds = sorted({one["fold"] for one in found})
    lines = [
        "Validation accuracy of the best epoch, %, and the mean of the last epochs'.\n",
        f"| | {' | '.join(f'fold {fold}' for fold in folds)} | mean | last |",
        "|---" * (3 + len(folds)) + "|",
    ]
    for idea in dict.fromkeys(one["idea"] for one in found):
        of = {one["fold"]: one for one in found if one["idea"] == idea}
        cells = [f"{100 * of[fold]['accuracy']:.1f}" if fold in of else "" for fold in folds]
        means = [100 * statistics.mean(one[key] for one in of.values()) for key in ("accuracy", "last")]
        lines.append(f"| {idea} | {' | '.join(cells)} | {' | '.join(f'{value:.1f}' for value in means)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ideas", nargs="*", metavar="IDEA", help=f"of {'; '.join(IDEAS)}; all where none is given")
    parser.add_argument("--folds", default="1,2,3")
    given, arguments = parser.parse_known_args()
    unknown = sorted(set(given.ideas) - set(IDEAS))
    if unknown:
        parser.error(f"unknown idea {unknown[0]!r}; there are {'; '.join(IDEAS)}")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    for idea in given.ideas or IDEAS:
        for fold in map(int, given.folds.split(",")):
            accuracy, last = valid_accuracies(recipe_of(idea, arguments), fold)
            print(f"{idea}, fold {fold}: {100 * accuracy:.1f} %, last epoch {100 * last:.1f} %", flush=True)
            keep(idea, fold, accuracy, last)


if __name__ == "__main__":
    main()
