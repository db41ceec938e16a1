"""Which triplets of a mini-batch to train on."""

from __future__ import annotations

import torch


@torch.no_grad()
def semi_hard(
    distances: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
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
