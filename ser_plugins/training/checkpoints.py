"""Checkpoints that survive a killed process, and what a checkpoint keeps of a run."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

from speechbrain.utils.checkpoints import (
    Checkpoint,
    Checkpointer,
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import ddp_barrier
from speechbrain.utils.epoch_loop import EpochCounterWithStopper

from ser_plugins.distributed import rank_and_size
from ser_plugins.errors import InputError

SAVE_SECONDS = 60  # an interrupted training loses at most the epochs of so many seconds


# SpeechBrain 1.1 gives the stopper the hooks of the plain counter, which forget its best epoch.
register_checkpoint_hooks(EpochCounterWithStopper)


class EpochCounter(EpochCounterWithStopper):  # type: ignore[misc]
    """Count epochs up to a limit, or until ``patience`` epochs have not improved the validation result.

    Parameters
    ----------
    limit : int
        Epochs at most.
    patience : int, optional
        Epochs without improvement; ``limit`` if not given.
    direction : {"max", "min"}
        Whether a larger or a smaller result is better.

    Raises
    ------
    ValueError
        If ``limit`` or ``patience`` is not a whole number above 0.

    Example
    -------
    >>> list(EpochCounter(3))
    [1, 2, 3]
    """

    def __init__(self, limit: int, patience: int | None = None, direction: str = "max") -> None:
        patience = limit if patience is None else patience
        for name, value in (("number_of_epochs", limit), ("patience", patience)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number above 0, got {value!r}")
        super().__init__(limit, limit_to_stop=patience, limit_warmup=0, direction=direction)


class WholeCheckpointer(Checkpointer):  # type: ignore[misc]
    """A Checkpointer whose checkpoints are whole even if the process is killed while it saves or deletes one.

    SpeechBrain takes any folder with a metadata file for a checkpoint, and writes that file first. Here the file gets
    its name last.

    `save_and_keep_only` skips an epoch that is not the best so far if the last save is less than a minute old: on a
    GPU, an epoch may take no longer than a save.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._best, self._saved = -math.inf, -math.inf

    def save_and_keep_only(self, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint and delete all but the best and the latest; see SpeechBrain."""
        signs = {"max_keys": 1.0, "min_keys": -1.0}
        meta = kwargs.get("meta") or {}
        scores = [sign * meta[key] for name, sign in signs.items() for key in kwargs.get(name, ()) if key in meta]
        due = time.monotonic() - self._saved > SAVE_SECONDS or rank_and_size()[1] > 1
        if scores and scores[0] < self._best and not due:
            return
        self._best = max([self._best, *scores[:1]])
        self._saved = time.monotonic() if scores else self._saved
        super().save_and_keep_only(*args, **kwargs)

    # SpeechBrain has no public way to write the file later.
    def _save_checkpoint_metafile(self, fpath: Path, *args: Any, **kwargs: Any) -> Any:
        return super()._save_checkpoint_metafile(_part(fpath), *args, **kwargs)

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> Checkpoint | None:
        """Save a checkpoint; see SpeechBrain."""
        checkpoint = super().save_checkpoint(*args, **kwargs)
        if checkpoint is not None:  # on the main process
            whole = checkpoint.path / "CKPT.yaml"
            os.replace(_part(whole), whole)
        ddp_barrier()
        return checkpoint

    def list_checkpoints(self) -> list[Checkpoint]:
        """List the checkpoints that hold every recoverable object."""
        return [found for found in super().list_checkpoints() if set(self.recoverables) <= set(found.paramfiles)]


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


@register_checkpoint_hooks
class Stopwatch:
    """Seconds of training, summed over interruptions."""

    def __init__(self) -> None:
        self.before = 0.0
        self.start = time.monotonic()

    def seconds(self) -> float:
        """Seconds so far."""
        return self.before + time.monotonic() - self.start

    @mark_as_saver  # type: ignore[untyped-decorator]
    def _save(self, path: str) -> None:
        with open(path, "w", encoding="utf-8") as file:
            file.write(repr(self.seconds()))

    @mark_as_loader  # type: ignore[untyped-decorator]
    def _load(self, path: str, end_of_epoch: bool = True) -> None:
        with open(path, encoding="utf-8") as file:
            self.before = float(file.read())
        self.start = time.monotonic()


def recover_best(checkpointer: Checkpointer, criterion: str, best: str) -> dict[str, Any]:
    """Load the best checkpoint and return its meta data; the checkpointer then lets go of all it saves.

    Parameters
    ----------
    checkpointer : Checkpointer
        Of a training that has ended.
    criterion : str
        Key of the meta data.
    best : {"max", "min"}
        Whether a larger or a smaller value is better.

    Raises
    ------
    InputError
        If no epoch was kept.
    """
    found = checkpointer.recover_if_possible(**{f"{best}_key": criterion})
    ddp_barrier()  # all processes have read it before one may delete it
    if found is None:
        raise InputError(f"{checkpointer.checkpoints_dir}: no epoch was kept; give --number_of_epochs 1 or more")
    checkpointer.recoverables.clear()  # they hold the audio and the Brain itself
    return dict(found.meta)
