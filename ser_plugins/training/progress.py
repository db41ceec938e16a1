"""The progress of a run over all of its folds, in one line."""

from __future__ import annotations

import dataclasses
import logging
import sys
import time
from collections.abc import MutableMapping, Sequence
from contextlib import ExitStack
from typing import Any

from speechbrain.utils.train_logger import TrainLogger
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ser_plugins.distributed import rank_and_size
from ser_plugins.training.recipe import Recipe

logger = logging.getLogger(__name__)
BAR = "{desc} |{bar:20}| {n_fmt} of {total_fmt} epochs"
TELLING = (
    "utils.epoch_loop",
    "nnet.schedulers",
    "utils.train_logger",
    "utils.seed",
)  # SpeechBrain's loggers of each epoch


class Progress(TrainLogger):  # type: ignore[misc]
    """Show fold, epoch, best epoch and expected time left: one moving line on a terminal, a line an epoch in a log.

    It takes the place of SpeechBrain's bars, except where a terminal shows the training of one fold. The time left
    assumes the mean pace of this run so far, with the evaluation of its folds. Use it as a context.

    Parameters
    ----------
    recipe : Recipe
        The run.
    folds : sequence of int
        Folds that it trains.
    """

    def __init__(self, recipe: Recipe, folds: Sequence[int]) -> None:
        self.recipe, self.folds = recipe, list(folds)
        terminal = sys.stderr.isatty()
        self.moving = terminal and len(self.folds) > 1
        self.logged = not terminal
        self.done = self.skipped = 0  # epochs of all folds, and those of them that this run did not train
        self.stack = ExitStack()
        self.bar: Any = None
        if self.moving or self.logged:
            given = recipe.options.overridden_args | {"noprogressbar"}
            recipe.options = dataclasses.replace(recipe.options, noprogressbar=True, overridden_args=given)

    def __enter__(self) -> Progress:
        """Begin to count the time; let the messages of other loggers pass above a moving line."""
        self.start = time.monotonic()
        if self.moving:
            for name in TELLING:
                logging.getLogger(f"speechbrain.{name}").setLevel(logging.WARNING)
            self.stack.enter_context(logging_redirect_tqdm())
            self.bar = self.stack.enter_context(
                tqdm(bar_format=BAR, dynamic_ncols=True, disable=rank_and_size()[0] > 0)
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the line as it is."""
        self.stack.close()

    def watch(self, fold: int, hparams: MutableMapping[str, Any]) -> None:
        """Show a fold from now on; its ``train_logger`` tells of each epoch, its ``epoch_counter`` of the best."""
        self.fold, self.counter, own = fold, hparams["epoch_counter"], hparams["train_logger"]
        own.loggers = (*own.loggers, self)
        self._show("")

    def log_stats(self, stats_meta: dict[str, Any], *_: Any, **__: Any) -> None:
        """Show an epoch, as `speechbrain.utils.train_logger.TrainLogger.log_stats`."""
        epoch, limit = stats_meta["epoch"], self.counter.limit
        done = self.folds.index(self.fold) * limit + epoch
        # Epochs of an earlier run, and those that `patience` saves, tell nothing of the pace.
        self.skipped += done - 1 - self.done
        self.done = done
        pace = (time.monotonic() - self.start) / (done - self.skipped)
        left = tqdm.format_interval(pace * (len(self.folds) * limit - done))
        found = f", best {100 * self.counter.best_score:.1f} % in epoch {self.counter.best_limit}"
        best = found if self.counter.best_limit else ""  # no epoch counts yet: see `Objective`
        self._show(f", epoch {epoch} of {limit}{best}, {left} left")

    def _show(self, about: str) -> None:
        name = f"{self.recipe['strategy']}, {self.recipe['corpus']}"
        line = f"{name}, fold {self.fold} of {self.recipe['n_folds']}{about}"
        if self.moving:
            self.bar.total, self.bar.n = len(self.folds) * self.counter.limit, self.done
            self.bar.set_description_str(line)
        elif self.logged:
            logger.info(line)
