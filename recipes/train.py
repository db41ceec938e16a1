#!/usr/bin/env python3
"""Train and evaluate a strategy: python recipes/train.py hparams/s5.yaml [--corpus …] [--key value …]."""

from ser_plugins.training.cli import start
from ser_plugins.training.emotions import run

if __name__ == "__main__":
    recipe, folder = start(run)
    print(f"results: {folder}")
    if recipe.tree["corpus"] == "synthetic":
        print("This was the built-in corpus: synthetic audio. Next, real speech:")
        print("  python recipes/train.py hparams/s1.yaml --corpus ravdess --data_folder FOLDER --download true")
