"""Several processes as one: with one process, each function returns its input."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.nn.functional import all_gather, all_reduce


def rank_and_size() -> tuple[int, int]:
    """Rank of this process and number of processes; (0, 1) without torch.distributed."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def total(value: Tensor) -> Tensor:
    """Sum over all processes; gradients pass."""
    return value if rank_and_size()[1] == 1 else all_reduce(value)  # type: ignore[no-untyped-call]


def gather(value: Tensor) -> Tensor:
    """Concatenate the rows [B, ...] of all processes, B of each its own; gradients pass to where each row is from."""
    size = rank_and_size()[1]
    if size == 1:
        return value
    own = torch.tensor(len(value), device=value.device)
    counts = [torch.empty_like(own) for _ in range(size)]
    torch.distributed.all_gather(counts, own)
    # What is gathered must have one shape.
    padded = torch.cat([value, value.new_zeros(int(max(counts)) - len(value), *value.shape[1:])])
    gathered = all_gather(padded)  # type: ignore[no-untyped-call]
    return torch.cat([rows[:count] for rows, count in zip(gathered, counts, strict=True)])
