"""Magnitude, axis of normalisation and voice activity detector, compared on validation actors; no test fold is read.

python benchmarks/features.py --corpus ravdess --data_folder FOLDER [--key value …] trains a small S1 (channels
8-16-32-64, crops of 1 s) for each choice and for folds 1, 4 and 7, then the two best ones for three folds more, and
writes benchmarks/results/features.md.
"""

import logging
import statistics
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path

from joblib import Parallel, delayed
from ser_plugins.training.emotions import make_loaders, prepare_corpus
from ser_plugins.training.fit import train

from ser_plugins.corpora.folds import fold_parts
from ser_plugins.files import atomic_write
from ser_plugins.training.brain import EncoderBrain
from ser_plugins.training.recipe import Recipe

FOLDS = (1, 4, 7)
MORE_FOLDS = (2, 5, 8)
Choice = tuple[bool, str, str]
CHOICES: list[Choice] = [
    *((log, axis, "silero") for log, axis in product((True, False), ("utterance", "bin", "frame"))),
    *((True, "utterance", vad) for vad in ("webrtc", "none")),
]
SMALL = {
    "channels": "[8, 16, 32, 64]",
    "descriptor_size": "64",
    "crop_seconds": "1.0",
    "number_of_epochs": "8",
    "lr_decay_epochs": "6",
}


def valid_accuracies(recipe: Recipe, folds: Sequence[int]) -> list[float]:
    corpus = prepare_corpus(recipe, recipe.read_corpus())
    accuracies = []
    for fold in folds:
        parts = {name: table for name, table in fold_parts(corpus, fold).items() if name != "test"}
        with tempfile.TemporaryDirectory() as folder:
            tree = {**recipe.tree, "labels": list(corpus.labels)}
            loaders = partial(make_loaders, parts=parts)
            brain, _ = train(tree, recipe.options, Path(folder), None, EncoderBrain, loaders)
        accuracies.append(brain.best["accuracy"])
    return accuracies


def compare(choices: Sequence[Choice], folds: Sequence[int], arguments: Sequence[str]) -> dict[Choice, list[float]]:
    small = [part for key, value in SMALL.items() for part in (f"--{key}", value)]
    recipes = []
    for log, axis, vad in choices:
        choice = ["--log_magnitude", str(log), "--norm_axis", axis, "--vad", vad]
        recipes.append(Recipe.from_arguments(["hparams/s1.yaml", *small, *choice, *arguments]))
        prepare_corpus(recipes[-1], recipes[-1].read_corpus())
    results = Parallel(n_jobs=-1, return_as="generator")(delayed(valid_accuracies)(one, folds) for one in recipes)
    found = {}
    for choice, accuracies in zip(choices, results, strict=True):
        found[choice] = accuracies
        print(row(choice, accuracies), flush=True)
    return found


def row(choice: Choice, accuracies: Sequence[float]) -> str:
    log, axis, vad = choice
    folds = " | ".join(f"{100 * accuracy:.1f}" for accuracy in accuracies)
    return f"| {'log' if log else 'linear'} | {axis} | {vad} | {folds} | {100 * statistics.mean(accuracies):.1f} |"


def table(found: dict[Choice, list[float]], folds: Sequence[int]) -> str:
    head = f"| magnitude | axis | VAD | {' | '.join(f'fold {fold}' for fold in folds)} | mean |"
    return "\n".join([head, "|---" * (4 + len(folds)) + "|", *(row(*item) for item in found.items())])


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    first = compare(CHOICES, FOLDS, sys.argv[1:])
    best = sorted(first, key=lambda choice: -statistics.mean(first[choice]))[:2]
    second = compare(best, MORE_FOLDS, sys.argv[1:])
    write(first, second)


def write(first: dict[Choice, list[float]], second: dict[Choice, list[float]]) -> None:
    text = f"Best validation accuracy, %.\n\n{table(first, FOLDS)}\n\nThe two best on other folds:\n\n"
    atomic_write(Path("benchmarks/results/features.md"), f"{text}{table(second, MORE_FOLDS)}\n")


if __name__ == "__main__":
    main()
