"""The progress of a run over all of its folds, in one line."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import MutableMapping, Sequence
from contextlib import ExitStack
from typing import Any

from speechbrain.utils.train_logger import TrainLogger
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ser_plugins.distributed import rank_and_size
from ser_plugins.training.recipe import Recipe

logger = logging.getLogger(__name__)
LINE = "{desc}, {remaining} left"
BAR = "{desc} |{bar:20}| {n_fmt} of {total_fmt} epochs, {remaining} left"


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
        self.recipe, self.folds, self.fold = recipe, list(folds), 0
        terminal = sys.stderr.isatty()
        self.moving = terminal and len(self.folds) > 1
        self.active = rank_and_size()[0] == 0 and (self.moving or not terminal)
        self.bar: Any = None
        self.stack = ExitStack()
        if self.moving or not terminal:
            recipe.options.noprogressbar = True
            logging.getLogger("speechbrain.utils.epoch_loop").setLevel(logging.WARNING)  # it names each epoch

    def __enter__(self) -> Progress:
        """Let log messages pass above a moving line."""
        if self.moving:
            self.stack.enter_context(logging_redirect_tqdm())
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the line as it is."""
        if self.bar is not None:
            self.bar.close()
        self.stack.close()

    def watch(self, fold: int, hparams: MutableMapping[str, Any]) -> None:
        """Show a fold from now on; its ``train_logger`` tells of each epoch, its ``epoch_counter`` of the best."""
        self.fold, self.counter, own = fold, hparams["epoch_counter"], hparams["train_logger"]
        own.loggers = (*own.loggers, self)
        if self.active and self.bar is None:
            total = len(self.folds) * self.counter.limit
            shown = {"bar_format": BAR, "dynamic_ncols": True} if self.moving else {"bar_format": LINE}
            self.bar = tqdm(total=total, smoothing=0, file=None if self.moving else io.StringIO(), **shown)
        self._show("")

    def log_stats(self, stats_meta: dict[str, Any], *_: Any, **__: Any) -> None:
        """Show an epoch, as `speechbrain.utils.train_logger.TrainLogger.log_stats`."""
        if not self.active:
            return
        done = self.folds.index(self.fold) * self.counter.limit + stats_meta["epoch"]
        # Epochs of an earlier run, and those that `patience` saved, tell nothing of the pace.
        self.bar.initial += done - 1 - self.bar.n
        self.bar.n = done
        best = f", best {100 * self.counter.best_score:.1f} % in epoch {self.counter.best_limit}"
        self._show(f", epoch {stats_meta['epoch']} of {self.counter.limit}{best}")

    def _show(self, about: str) -> None:
        if not self.active:
            return
        name = f"{self.recipe['strategy']}, {self.recipe['corpus']}"
        self.bar.set_description_str(f"{name}, fold {self.fold} of {self.recipe['n_folds']}{about}")
        if not self.moving:
            logger.info(str(self.bar) if about else self.bar.desc)
