"""What the recipes share: logging, processes, and errors in one line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

from ser_plugins.distributed import rank_and_size
from ser_plugins.errors import InputError
from ser_plugins.memory import keep_memory
from ser_plugins.training.fit import commit
from ser_plugins.training.processes import join, leave
from ser_plugins.training.recipe import Recipe


def start(run: Callable[[Recipe], Path]) -> tuple[Recipe, Path]:
    """Run a recipe with the arguments of the command line; return it and the folder of its results."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    for name in ("core", "utils.checkpoints", "augment.augmenter"):  # each has a level of its own
        logging.getLogger(f"speechbrain.{name}").setLevel(logging.WARNING)
    keep_memory()
    commit()  # of the code that runs, whatever is checked out when training begins
    try:
        recipe = Recipe.from_arguments(sys.argv[1:])
        recipe.options = join(recipe.options)
        if rank_and_size()[0]:
            logging.getLogger().setLevel(logging.ERROR)  # the first process tells
        folder = run(recipe)
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on")
    rank, _ = rank_and_size()
    leave()
    if rank:
        sys.exit()
    return recipe, folder
