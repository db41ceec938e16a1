#!/usr/bin/env python3
"""Train and evaluate a strategy: python recipes/train.py hparams/s5.yaml [--corpus …] [--key value …]."""

import logging
import sys

from ser_plugins.errors import InputError
from ser_plugins.training.run import Recipe, run


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    for name in ("core", "utils.checkpoints"):  # each has a level of its own
        logging.getLogger(f"speechbrain.{name}").setLevel(logging.WARNING)
    try:
        recipe = Recipe.from_arguments(sys.argv[1:])
        folder = run(recipe)
    except InputError as error:
        sys.exit(f"error: {error}")
    print(f"results: {folder}")
    if recipe.tree["corpus"] == "demo":
        print("This was the built-in corpus: synthetic audio. Next, real speech:")
        print(f"  python recipes/train.py {sys.argv[1]} --corpus ravdess --data_folder FOLDER --download true")


if __name__ == "__main__":
    main()
