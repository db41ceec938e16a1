"""Which triplets of a mini-batch to train on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch

from ser_plugins.errors import InputError

Triplets: TypeAlias = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@torch.no_grad()
def semi_hard(distances: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor) -> Triplets:
    """Choose the semi-hard far element of each (anchor, near) pair.

    It is the closest candidate that lies farther from the anchor than the near element does; where none does, the
    farthest of them (Schroff et al., FaceNet, 2015, as TensorFlow's ``triplet_semihard_loss`` completes it).
    The hardest candidate would be the other choice, and collapses embeddings into a point early in training.

    Each anchor's candidates are sorted once and each pair looks its threshold up: O(B² log B) time, O(B²) memory, where
    comparing all triplets takes O(B³) of both.

    Arguments
    ---------
    distances : torch.Tensor
        [B, B], from anchors (rows) to the elements of the batch.
    positives : torch.Tensor
        [B, B] bool, true where the column is a near element for the row; without the diagonal.
    negatives : torch.Tensor
        [B, B] bool, true where the column is a candidate far element for the row.

    Returns
    -------
    tuple of torch.Tensor
        Indices of anchors, near and far elements, [N] each: one entry for every near pair whose anchor has a candidate.

    Example
    -------
    >>> distances = torch.tensor([[0.0, 0.5, 0.4, 0.6], [0.5, 0, 1, 1], [0.4, 1, 0, 1], [0.6, 1, 1, 0]])
    >>> same = torch.tensor([[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]).bool()
    >>> other = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]).bool()
    >>> [index.tolist() for index in semi_hard(distances, same, other)]
    [[0], [1], [3]]
    """
    farthest = torch.finfo(distances.dtype).max
    # A NaN must sort among the candidates, not behind those that are none.
    candidates = distances.nan_to_num(nan=farthest, posinf=farthest).masked_fill(~negatives, torch.inf)
    candidates, order = candidates.sort(dim=1)
    last = negatives.sum(dim=1, keepdim=True) - 1
    # Searches for one and the same value are all but free: only those of near elements take time.
    thresholds = distances.masked_fill(~positives, 0)
    position = torch.searchsorted(candidates, thresholds, right=True).minimum(last)
    anchor, near = (positives & (last >= 0)).nonzero(as_tuple=True)
    return anchor, near, order[anchor, position[anchor, near]]


def as_triplets(indices: Sequence[torch.Tensor], device: torch.device) -> Triplets:
    """Turn the ``indices_tuple`` of a miner of pytorch-metric-learning into triplets, as its own losses do.

    Parameters
    ----------
    indices : sequence of torch.Tensor
        Anchors, positives and negatives of triplets, [N] each; or anchors and positives of pairs, [P] each, and anchors
        and negatives of others, [Q] each: all triplets that have an anchor in common.
    device : torch.device
        Where the triplets are to be.

    Returns
    -------
    tuple of torch.Tensor
        Indices of anchors, positives and negatives, [N] each.

    Raises
    ------
    InputError
        If these are not three or four tensors.

    Example
    -------
    >>> pairs = torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([0, 0]), torch.tensor([2, 3])
    >>> [index.tolist() for index in as_triplets(pairs, torch.device("cpu"))]
    [[0, 0], [1, 1], [2, 3]]
    """
    if len(indices) not in {3, 4} or not all(isinstance(part, torch.Tensor) for part in indices):
        raise InputError(f"indices_tuple has {len(indices)} parts; give the three or four tensors that a miner returns")
    parts = [part.to(device) for part in indices]
    if len(parts) == 3:
        return parts[0], parts[1], parts[2]
    anchors, positives, other_anchors, negatives = parts
    one, other = torch.where(anchors[:, None] == other_anchors)
    return anchors[one], positives[one], negatives[other]
