"""Our losses under the miners and trainers of pytorch-metric-learning."""

from functools import partial

import pytest
import torch
from pytorch_metric_learning.losses import MultipleLosses, TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner, MultiSimilarityMiner, TripletMarginMiner
from pytorch_metric_learning.reducers import MeanReducer
from pytorch_metric_learning.trainers import MetricLossOnly
from pytorch_metric_learning.utils.distributed import DistributedLossWrapper
from torch.nn import functional

from ser_plugins import ContrastiveLoss, EmotionConstrainedTripletLoss, GradedTripletLoss, TripletLoss
from ser_plugins.errors import InputError
from ser_plugins.metric import emotion_distances
from ser_plugins.metric.wheel import WHEEL

LABELS = ["neutral", "happy", "sad", "angry"]
MINERS = [MultiSimilarityMiner(0.1), BatchHardMiner(), TripletMarginMiner(0.1)]
each_miner = pytest.mark.parametrize("miner", MINERS, ids=lambda miner: type(miner).__name__)
each_loss = pytest.mark.parametrize(
    "make",
    [
        TripletLoss,
        partial(EmotionConstrainedTripletLoss, LABELS),
        partial(GradedTripletLoss, LABELS),
        ContrastiveLoss,
    ],
    ids=["triplet", "emotion", "graded", "contrastive"],
)


def batch(count=24, size=5):
    embeddings = torch.randn(count, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return embeddings.requires_grad_(), torch.arange(count) % 4


def distance(embeddings, a, b):
    one, other = (functional.normalize(embeddings[i].detach(), dim=0) for i in (a, b))
    return float((one - other).norm())


def triplets_of(indices):
    """What a miner's answer means: its triplets, or all pairs of one anchor."""
    rows = [part.tolist() for part in indices]
    if len(rows) == 3:
        return list(zip(*rows, strict=True))
    near, far = (list(zip(*rows[i : i + 2], strict=True)) for i in (0, 2))
    return [(a, p, n) for a, p in near for b, n in far if a == b]


@each_miner
def test_the_triplet_loss_is_that_of_the_library(miner):
    embeddings, labels = batch()
    mined = miner(embeddings, labels)
    expected = TripletMarginLoss(0.1, reducer=MeanReducer())(embeddings, labels, mined)
    loss = TripletLoss(0.1)
    torch.testing.assert_close(loss(embeddings, labels, mined), expected)
    assert loss(embeddings, labels, mined) != loss(embeddings, labels)
    assert loss(embeddings, labels, mined) == loss(embeddings[:, None], labels, indices_tuple=mined)
    assert loss(embeddings, labels, torch.ones(24)) == loss(embeddings, labels)  # lengths change nothing
    torch.testing.assert_close(loss(embeddings, labels, torch.ones(24), list(mined)), expected)


@each_miner
def test_the_graded_loss_has_the_margin_of_each_triplet(miner):
    embeddings, labels = batch()
    mined, apart = miner(embeddings, labels), emotion_distances(LABELS)
    terms = [
        max(
            0.0,
            distance(embeddings, a, p) + 0.25 * float(apart[labels[a], labels[n]]) - distance(embeddings, a, n),
        )
        for a, p, n in triplets_of(mined)
    ]
    found = GradedTripletLoss(LABELS, margin=0.25)(embeddings, labels, mined)
    assert found.item() == pytest.approx(sum(terms) / len(terms))


@each_miner
def test_the_emotion_constraint_is_that_of_the_mined_elements(miner):
    embeddings, labels = batch()
    mined = miner(embeddings, labels)
    names = [LABELS[label] for label in labels.tolist()]
    related = {
        (a, b) for a in range(24) for b in range(24) if names[a] != names[b] and WHEEL[names[a]] == WHEEL[names[b]]
    }
    first, second = [], []
    for a, p, n in triplets_of(mined):
        if (a, n) in related or names[a] in {"neutral", "happy"}:  # alone in their polarity here
            first.append(max(0.0, distance(embeddings, a, p) + 0.1 - distance(embeddings, a, n)))
    far = {(a, n) for a, _, n in triplets_of(mined)}
    for a, r in far & related:
        others = [distance(embeddings, a, n) for b, n in far if b == a and WHEEL[names[n]] != WHEEL[names[a]]]
        if others:
            near = distance(embeddings, a, r)
            beyond = [value for value in others if value > near]
            second.append(max(0.0, near + 0.15 - (min(beyond) if beyond else max(others))))
    expected = sum(first) / max(1, len(first)) + sum(second) / max(1, len(second))
    loss = EmotionConstrainedTripletLoss(LABELS)
    assert loss(embeddings, labels, mined).item() == pytest.approx(expected)
    assert loss.statistics["emotion_triplets"] == len(first) > 0
    assert loss.statistics["polarity_triplets"] == len(second)


@each_loss
def test_a_miner_that_finds_nothing_gives_a_zero(make):
    labels = torch.arange(24) % 4
    embeddings = torch.eye(4)[labels].requires_grad_()
    mined = MultiSimilarityMiner(0.1)(embeddings, labels)
    assert not any(len(part) for part in mined)
    value = make()(embeddings, labels, mined)
    value.backward()
    assert value == 0 and not embeddings.grad.any()


def test_what_is_no_miners_answer_is_refused():
    embeddings, labels = batch()
    with pytest.raises(InputError, match="indices_tuple has 2 parts; give the three or four"):
        TripletLoss()(embeddings, labels, (torch.tensor([0]), torch.tensor([4])))
    with pytest.raises(InputError, match="three or four tensors"):
        TripletLoss()(embeddings, labels, indices_tuple=[0, 4, 1])


@each_loss
def test_several_losses_each_with_a_miner(make):
    embeddings, labels = batch()
    losses, miners = [make(), TripletLoss()], [BatchHardMiner(), None]
    found = MultipleLosses(losses, miners, [1.0, 0.5])(embeddings, labels)
    expected = make()(embeddings, labels, BatchHardMiner()(embeddings, labels)) + 0.5 * TripletLoss()(
        embeddings, labels
    )
    torch.testing.assert_close(found, expected)


@each_loss
def test_a_trainer_of_the_library_trains_with_its_miner(make):
    torch.manual_seed(0)
    data = torch.randn(32, 6) + 2 * torch.eye(6)[torch.arange(32) % 4]
    dataset = torch.utils.data.TensorDataset(data, torch.arange(32) % 4)
    trunk, loss, seen = torch.nn.Linear(6, 6), make(), []
    loss.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[2])))
    before = make()(data, torch.arange(32) % 4).item()
    trainer = MetricLossOnly(
        {"trunk": trunk},
        {"trunk_optimizer": torch.optim.Adam(trunk.parameters(), 0.03)},
        16,
        {"metric_loss": loss},
        dataset,
        {"tuple_miner": MultiSimilarityMiner(0.1)},
        dataloader_num_workers=0,
    )
    trainer.train(num_epochs=15)
    assert set(seen) == {4}  # the miner's indices came
    assert make()(trunk(data), torch.arange(32) % 4).item() < 0.7 * before


def test_the_wrapper_of_the_library_for_several_processes_refuses_a_loss_of_others():
    """Ours sees the batch of all processes without it; should this fail one day, the two would do it twice."""
    with pytest.raises(TypeError, match="BaseMetricLossFunction"):
        DistributedLossWrapper(TripletLoss())
