"""Checkpoints that a run may be killed in the middle of."""

from __future__ import annotations

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

# SpeechBrain 1.1 leaves the stopper to the hooks of the plain counter: once resumed, it would forget its best epoch.
register_checkpoint_hooks(EpochCounterWithStopper)


class WholeCheckpointer(Checkpointer):  # type: ignore[misc]
    """A Checkpointer that takes no half-written or half-deleted checkpoint for a whole one.

    SpeechBrain takes any folder with a metadata file for a checkpoint, and writes that file first. Here it gets its
    name last.
    """

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
        """List the checkpoints that hold all that is to be recovered."""
        return [found for found in super().list_checkpoints() if set(self.recoverables) <= set(found.paramfiles)]


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


@register_checkpoint_hooks
class Stopwatch:
    """Seconds of training, over interruptions."""

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
