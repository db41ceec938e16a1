"""Joining and leaving the processes that torchrun starts."""

from __future__ import annotations

import dataclasses
import gc
import os
from typing import Any

import torch

from ser_plugins.distributed import rank_and_size


def join(options: Any) -> Any:
    """Join the processes that torchrun started, if it did; without a GPU they talk by gloo.

    Takes SpeechBrain's run options, and returns those to go on with.
    """
    if "LOCAL_RANK" not in os.environ:
        return options
    from speechbrain.utils.distributed import ddp_init_group  # noqa: PLC0415 — SpeechBrain takes a second to load

    if not torch.cuda.is_available():
        given = options.overridden_args | {"distributed_backend"}
        options = dataclasses.replace(options, distributed_backend="gloo", overridden_args=given)
    ddp_init_group(options)
    return options


def leave() -> None:
    """Part from the other processes, once all are done: one that just ends may be aborted, or abort the others."""
    if rank_and_size()[1] > 1:
        torch.distributed.barrier()
        gc.collect()  # what was trained holds the group, whose threads must end before Python does
        torch.distributed.destroy_process_group()
