"""A head of one binary classifier for each pair of classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PairwiseClassifier(nn.Module):
    """One classifier a pair of classes: embeddings [B, 1, E] in, log-probabilities [B, 1, C] out.

    After the emotion pairs of Ma et al., Interspeech 2017: each pair has a feature subspace of its own, here a linear
    layer with ReLU, and a linear decision d_ij in it. ``r_ij = sigmoid(d_ij)`` is the probability of i where i or j is
    true. The probabilities of all pairs are fused by ``p_i = 1 / (sum_j 1 / r_ij - (C - 2))`` (Price et al., NIPS
    1994), which is exact where the pairs agree, and normalised.

    Given the labels, as in training, the scores are not normalised: the score of a class depends on its own pairs
    only, so that an utterance trains the C - 1 pairs of its emotion.

    Parameters
    ----------
    input_size : int
        Size of an embedding, E.
    n_classes : int
        Classes, C.
    subspace_size : int
        Values of the subspace of a pair.

    Example
    -------
    >>> PairwiseClassifier(512, 8)(torch.randn(2, 1, 512)).exp().sum(-1).detach().round(decimals=4).flatten()
    tensor([1., 1.])
    """

    pairs: Tensor
    signs: Tensor

    def __init__(self, input_size: int, n_classes: int, subspace_size: int = 16) -> None:
        super().__init__()
        first, second = torch.triu_indices(n_classes, n_classes, 1)
        count = len(first)
        self.subspaces = nn.Linear(input_size, count * subspace_size)
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(count, subspace_size)))
        self.bias = nn.Parameter(torch.zeros(count))
        # Row i has the pairs of class i, and +1 where it is the first of the two.
        numbers, signs = (torch.zeros(n_classes, n_classes, dtype=torch.long) for _ in range(2))
        numbers[first, second] = numbers[second, first] = torch.arange(count)
        signs[first, second], signs[second, first] = 1, -1
        others = ~torch.eye(n_classes, dtype=torch.bool)
        self.register_buffer("pairs", numbers[others].view(n_classes, -1), persistent=False)
        self.register_buffer("signs", signs[others].view(n_classes, -1), persistent=False)

    def forward(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        """Classify ``embeddings`` [..., E], in float32 or finer; ``labels`` of any value ask for training scores."""
        decisions = self.pair_decisions(embeddings)
        against = decisions[..., self.pairs] * self.signs
        # 1 / r = 1 + exp(-d): the sum over C - 1 pairs, less C - 2, is 1 + sum exp(-d).
        scores = -torch.cat([torch.zeros_like(against[..., :1]), -against], dim=-1).logsumexp(-1)
        return scores if labels is not None else scores.log_softmax(-1)

    def pair_decisions(self, embeddings: Tensor) -> Tensor:
        """Decisions d [..., P] of the pairs (0, 1), (0, 2), …; positive for a pair's first class."""
        hidden = torch.relu(self.subspaces(embeddings)).reshape(*embeddings.shape[:-1], *self.weight.shape)
        with torch.autocast(embeddings.device.type, enabled=False):
            decisions: Tensor = (hidden.to(self.weight.dtype) * self.weight).sum(-1) + self.bias
            return decisions
