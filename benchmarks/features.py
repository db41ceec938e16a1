"""Magnitude, axis of normalisation and voice activity detector, compared on validation actors; no test fold is read.

python benchmarks/features.py --corpus ravdess --data_folder FOLDER [--key value …] trains a small S1 (channels
8-16-32-64, crops of 1 s) for each choice and for folds 1, 4 and 7, and writes benchmarks/results/features.md.
"""

import logging
import statistics
import sys
import tempfile
from itertools import product
from pathlib import Path

from joblib import Parallel, delayed

from ser_plugins.corpora.folds import fold_parts
from ser_plugins.files import atomic_write
from ser_plugins.training.run import Recipe, prepare_corpus, train, with_audio

FOLDS = (1, 4, 7)
CHOICES = [
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


def valid_accuracies(recipe: Recipe) -> list[float]:
    corpus = recipe.read_corpus()
    prepared = prepare_corpus(recipe, corpus)
    accuracies = []
    for fold in FOLDS:
        parts = {
            name: with_audio(table, prepared) for name, table in fold_parts(corpus, fold).items() if name != "test"
        }
        with tempfile.TemporaryDirectory() as folder:
            tree = {**recipe.tree, "labels": list(corpus.labels)}
            brain, _ = train(tree, recipe.options, parts, Path(folder), None)
        accuracies.append(brain.best["accuracy"])
    return accuracies


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    small = [part for key, value in SMALL.items() for part in (f"--{key}", value)]
    recipes = []
    for log, axis, vad in CHOICES:
        choice = ["--log_magnitude", str(log), "--norm_axis", axis, "--vad", vad]
        recipes.append(Recipe.from_arguments(["hparams/s1.yaml", *small, *choice, *sys.argv[1:]]))
        prepare_corpus(recipes[-1], recipes[-1].read_corpus())
    results = Parallel(n_jobs=-1, return_as="generator")(map(delayed(valid_accuracies), recipes))
    rows = []
    for (log, axis, vad), found in zip(CHOICES, results, strict=True):
        folds = " | ".join(f"{100 * accuracy:.1f}" for accuracy in found)
        rows.append(f"| {'log' if log else 'linear'} | {axis} | {vad} | {folds} | {100 * statistics.mean(found):.1f} |")
        print(rows[-1], flush=True)
    head = [
        f"| magnitude | axis | VAD | {' | '.join(f'fold {fold}' for fold in FOLDS)} | mean |",
        "|---" * (4 + len(FOLDS)) + "|",
    ]
    text = "\n".join(["Best validation accuracy, %.", "", *head, *rows])
    atomic_write(Path("benchmarks/results/features.md"), text + "\n")


if __name__ == "__main__":
    main()
