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


def gather(value: Tensor, own_first: bool = False) -> Tensor:
    """Concatenate the rows [B, ...] of all processes; gradients pass to the process that each row is from.

    Parameters
    ----------
    value : torch.Tensor
        [B, ...]; B may differ between processes.
    own_first : bool
        Put the rows of this process before those of the others, instead of all in the order of the ranks.

    Returns
    -------
    torch.Tensor
        [sum of B, ...].
    """
    rank, size = rank_and_size()
    if size == 1:
        return value
    own = torch.tensor(len(value), device=value.device)
    counts = [torch.empty_like(own) for _ in range(size)]
    torch.distributed.all_gather(counts, own)
    # What is gathered must have one shape.
    padded = torch.cat([value, value.new_zeros(int(max(counts)) - len(value), *value.shape[1:])])
    gathered = all_gather(padded)  # type: ignore[no-untyped-call]
    rows = [part[:count] for part, count in zip(gathered, counts, strict=True)]
    return torch.cat([rows.pop(rank), *rows] if own_first else rows)
