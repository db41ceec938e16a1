"""What the recipes share: logging, processes, and errors in one line."""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from ser_plugins.distributed import join, leave, rank_and_size
from ser_plugins.errors import InputError
from ser_plugins.training.fit import commit
from ser_plugins.training.recipe import Recipe

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # malloc.h of glibc


def keep_memory() -> bool:
    """Let the C library keep the memory that is freed, for what comes next; tell whether it does.

    By default glibc gives each large block back at once, and the kernel fills its pages with zeros again at the next
    step: up to a third of the time of training on a CPU.
    """
    return _mallopt(M_MMAP_MAX, 0) and _mallopt(M_TRIM_THRESHOLD, -1)


def return_memory() -> bool:
    """Let the C library give each large block back, whatever comes next; tell whether it does.

    By default glibc keeps more the larger the blocks are that it has seen, and blocks of ever other sizes leave holes
    between them: the memory of a long run grows.
    """
    return _mallopt(M_MMAP_THRESHOLD, 2**20)


def _mallopt(option: int, value: int) -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and bool(mallopt(option, value))


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
