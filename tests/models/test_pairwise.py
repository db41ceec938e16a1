"""The head of pairs by loops, and on pairs whose fusion is known."""

import math

import pytest
import torch

from ser_plugins import PairwiseClassifier, SmoothedCrossEntropy


def by_loops(head, embedding):
    """Probability r[i][j] of i against j, by the weights of each pair."""
    count, size = head.weight.shape
    n_classes = round((1 + math.sqrt(1 + 8 * count)) / 2)
    r, pair = [[0.0] * n_classes for _ in range(n_classes)], 0
    for i in range(n_classes):
        for j in range(i + 1, n_classes):
            rows = slice(pair * size, (pair + 1) * size)
            hidden = (head.subspaces.weight[rows] @ embedding + head.subspaces.bias[rows]).clamp(min=0)
            decision = float(head.weight[pair] @ hidden + head.bias[pair])
            r[i][j] = 1 / (1 + math.exp(-decision))
            r[j][i], pair = 1 - r[i][j], pair + 1
    return r


@pytest.mark.parametrize("n_classes", [2, 3, 8])
@torch.no_grad()
def test_probabilities_are_the_fused_pairs(n_classes):
    torch.manual_seed(0)
    head, embeddings = PairwiseClassifier(6, n_classes, 4), torch.randn(5, 1, 6)
    torch.nn.init.normal_(head.bias)
    found = head(embeddings).exp()
    for embedding, row in zip(embeddings[:, 0], found[:, 0], strict=True):
        r = by_loops(head, embedding)
        others = [[j for j in range(n_classes) if j != i] for i in range(n_classes)]
        fused = [1 / (sum(1 / r[i][j] for j in others[i]) - (n_classes - 2)) for i in range(n_classes)]
        torch.testing.assert_close(row, torch.tensor(fused) / sum(fused), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_pairs_that_agree_give_the_softmax():
    """r_ij = p_i / (p_i + p_j) for the probabilities of a softmax: they are found again, without normalisation."""
    head, scores = PairwiseClassifier(6, 4), torch.randn(4)
    head.weight.zero_()
    head.bias.copy_(torch.stack([scores[i] - scores[j] for i in range(4) for j in range(i + 1, 4)]))
    for labels in (None, torch.zeros(3, dtype=torch.long)):
        torch.testing.assert_close(head(torch.randn(3, 1, 6), labels)[:, 0], scores.log_softmax(0).expand(3, 4))


def test_an_utterance_trains_the_pairs_of_its_emotion_alone():
    head = PairwiseClassifier(6, 4)
    labels = torch.tensor([1, 1])
    torch.nn.functional.nll_loss(head(torch.randn(2, 1, 6), labels).squeeze(1), labels).backward()
    # The pairs are (0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3).
    assert (head.bias.grad != 0).tolist() == [True, False, False, True, True, False]


def test_it_learns():
    torch.manual_seed(0)
    head, labels = PairwiseClassifier(6, 4), torch.arange(40) % 4
    embeddings = (4 * torch.eye(4, 6)[labels] + torch.randn(40, 6)).unsqueeze(1)
    optimizer, loss = torch.optim.Adam(head.parameters(), lr=0.02), SmoothedCrossEntropy(smoothing=0.0)
    for _ in range(60):
        optimizer.zero_grad()
        loss(head(embeddings, labels), labels).backward()
        optimizer.step()
    assert (head(embeddings).argmax(-1).flatten() == labels).float().mean() > 0.95


@torch.no_grad()
def test_precisions_agree():
    torch.manual_seed(0)
    head, embeddings = PairwiseClassifier(6, 4), torch.randn(5, 1, 6)
    expected = head(embeddings)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = head(embeddings)
    assert cast.dtype == torch.float32
    torch.testing.assert_close(cast, expected, atol=0.05, rtol=0.05)
    torch.testing.assert_close(head.double()(embeddings.double()).float(), expected)
    assert head(100 * embeddings.double()).isfinite().all()
