"""The distance that the metric losses mine and train in."""

from __future__ import annotations

import torch
from torch.nn import functional


def pairwise_distances(embeddings: torch.Tensor, squared: bool = False) -> torch.Tensor:
    """Euclidean distances between L2-normalised embeddings.

    Our copy of the paper lacks the equations that may define D. Its margins (0.1 and 0.15) mean something only on a
    bounded scale, so embeddings are first normalised, as in FaceNet: distances lie in [0, 2], squared ones in [0, 4].

    Half precision is computed in float32, autocast or not; float64 stays. Squares come from matrix products, ten
    times as fast as differences, and in float64, where 2 − 2 x·y keeps all digits that float32 has. Embeddings less
    than 1e-7 apart, which float32 does not tell from equal ones, have distance zero; its gradient is zero.

    Arguments
    ---------
    embeddings : torch.Tensor
        [B, E], any floating-point type.
    squared : bool
        Give squared distances.

    Returns
    -------
    torch.Tensor
        [B, B], float32 or float64.

    Example
    -------
    >>> pairwise_distances(torch.tensor([[3.0, 0.0], [5.0, 0.0], [0.0, 1.0]])).tolist()[0]
    [0.0, 0.0, 1.4142135381698608]
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        exact = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
        unit = functional.normalize(exact, dim=-1).double()
        distances = torch.cdist(unit, unit, compute_mode="use_mm_for_euclid_dist")
        distances = distances.masked_fill(distances < 1e-7, 0).to(exact.dtype)
        return distances.square() if squared else distances


@torch.no_grad()
def neighbour_errors(
    embeddings: torch.Tensor, labels: torch.Tensor, lengths: torch.Tensor | None = None
) -> torch.Tensor:
    """Tell for each utterance of a batch whether its nearest neighbour in the batch is of another class.

    The error rate of embeddings without a classifier, for the ``error_stats`` of a SpeechBrain recipe. It depends on
    what else is in the batch: compare it between epochs, not between batch sizes.

    Arguments
    ---------
    embeddings : torch.Tensor
        [B, E] or [B, 1, E].
    labels : torch.Tensor
        [B] or [B, 1], class indices.
    lengths : torch.Tensor, optional
        Changes nothing; SpeechBrain's recipes give every metric the relative lengths.

    Returns
    -------
    torch.Tensor
        [B], 1 for an error and 0 otherwise.

    Example
    -------
    >>> embeddings = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> neighbour_errors(embeddings, torch.tensor([0, 0, 1])).tolist()
    [0.0, 0.0, 1.0]
    """
    labels = labels.flatten()
    distances = pairwise_distances(embeddings.flatten(1)).fill_diagonal_(torch.inf)
    return (labels[distances.argmin(1)] != labels).float()
