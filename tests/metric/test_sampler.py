"""P × K batches: what each holds, what an epoch visits, and what decides the order."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ser_plugins.errors import InputError
from ser_plugins.metric import BalancedBatchSampler

RAVDESS = [0] * 76 + [label for label in range(1, 8) for _ in range(152)]  # a training part: neutral has half


def classes(sampler, batch):
    return Counter(sampler.labels[batch].tolist())


@pytest.mark.parametrize(("n_classes", "batch_size"), [(8, 32), (6, 32), (6, 8), (3, 3)])
def test_every_batch_holds_every_class(n_classes, batch_size):
    sampler = BalancedBatchSampler([label for label in range(n_classes) for _ in range(20 + 7 * label)], batch_size)
    batches = list(sampler)
    assert len(batches) == len(sampler) > 1
    for batch in batches:
        counts = classes(sampler, batch)
        assert sum(counts.values()) == batch_size
        assert len(counts) == n_classes
        assert max(counts.values()) - min(counts.values()) <= 1


def test_the_rest_of_a_batch_goes_round():
    sampler = BalancedBatchSampler([label for label in range(6) for _ in range(64)], 32)
    total = sum((classes(sampler, batch) for batch in sampler), Counter())
    assert max(total.values()) - min(total.values()) <= 1


def test_an_epoch_visits_each_utterance_once_where_classes_are_equal():
    sampler = BalancedBatchSampler([label for label in range(8) for _ in range(16)], 32)
    assert sorted(index for batch in sampler for index in batch) == list(range(128))


def test_small_classes_repeat_evenly():
    sampler = BalancedBatchSampler(RAVDESS, 32)
    visits = Counter(index for batch in sampler for index in batch)
    assert len(sampler) == -(-len(RAVDESS) // 32)
    assert {visits[index] for index in range(76)} <= {1, 2}
    assert max(visits[index] for index in range(76, len(RAVDESS))) == 1
    assert len(visits) > 0.9 * len(RAVDESS)


def test_each_iteration_is_a_new_epoch():
    sampler = BalancedBatchSampler(RAVDESS, 32)
    first, second = list(sampler), list(sampler)
    assert first != second
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert list(sampler) == second


def test_order_is_a_function_of_seed_and_epoch():
    resumed = BalancedBatchSampler(RAVDESS, 32, seed=3)
    resumed.set_epoch(5)
    straight = BalancedBatchSampler(RAVDESS, 32, seed=3)
    for _ in range(5):
        list(straight)
    fifth = list(resumed)
    assert list(straight) == fifth
    other = BalancedBatchSampler(RAVDESS, 32, seed=4)
    other.set_epoch(5)
    assert list(other) != fifth


def test_loader_workers_advance_one_epoch_an_iteration():
    sampler = BalancedBatchSampler([0, 1] * 8, 4)
    loader = DataLoader(torch.arange(16), batch_sampler=sampler, num_workers=1)
    for epoch in range(2):
        seen = [batch.tolist() for batch in loader]
        again = BalancedBatchSampler([0, 1] * 8, 4)
        again.set_epoch(epoch)
        assert seen == list(again)


def test_batches_of_speakers_hold_an_utterance_of_each_class_of_each():
    rng = np.random.default_rng(0)
    labels, speakers = rng.integers(0, 5, 400), rng.choice(list("abcdef"), 400)
    kept = ~((speakers == "c") & (labels == 3))  # whom a class is missing of
    labels, speakers = labels[kept], speakers[kept]
    sampler = BalancedBatchSampler(labels, 17, n_batches=40, speakers=speakers)
    batches = list(sampler)
    assert len(batches) == 40
    for batch in batches:
        said = Counter(zip(speakers[batch].tolist(), labels[batch].tolist(), strict=True))
        names = {name for name, _ in said}
        assert len(names) == 3  # of five classes each: 15 of 17
        assert said == {(name, label): 1 for name in names for label in range(5) if (name, label) != ("c", 3)}
    heard = Counter(name for batch in batches for name in set(speakers[batch]))
    assert set(heard.values()) == {20}
    often = Counter(index for batch in batches for index in batch)
    for name, label in set(zip(speakers.tolist(), labels.tolist(), strict=True)):
        counts = [often[i] for i in np.flatnonzero((speakers == name) & (labels == label))]
        assert max(counts) - min(counts) <= 1
    again = BalancedBatchSampler(labels, 17, n_batches=40, speakers=speakers)
    assert list(again) == batches and list(again) != batches


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_an_epoch(world_size):
    ranks = [BalancedBatchSampler(RAVDESS, 32, rank=rank, world_size=world_size) for rank in range(world_size)]
    parts = [list(rank) for rank in ranks]
    assert {len(part) for part in parts} == {len(ranks[0])}
    whole = list(BalancedBatchSampler(RAVDESS, 32, n_batches=sum(map(len, parts))))
    assert [batch for together in zip(*parts, strict=True) for batch in together] == whole


def test_ranks_are_disjoint_where_classes_are_equal():
    parts = [
        BalancedBatchSampler([label for label in range(4) for _ in range(16)], 8, 0, None, 4, r, 2) for r in (0, 1)
    ]
    visited = [{index for batch in part for index in batch} for part in parts]
    assert not visited[0] & visited[1]
    assert visited[0] | visited[1] == set(range(64))


def test_rank_comes_from_torch_distributed(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    expected = list(BalancedBatchSampler(RAVDESS, 32, rank=1, world_size=2))
    assert list(BalancedBatchSampler(RAVDESS, 32)) == expected


def test_brain_splits_the_whole_epoch_once():
    """Under DDP SpeechBrain wraps the batch sampler: world_size=1 leaves the splitting to the wrapper."""
    from speechbrain.dataio.sampler import DistributedSamplerWrapper

    def wrapped(rank):
        sampler = BalancedBatchSampler(RAVDESS, 32, rank=0, world_size=1)
        wrapper = DistributedSamplerWrapper(sampler, num_replicas=2, rank=rank, shuffle=True)
        wrapper.set_epoch(1)
        return list(wrapper)

    whole = BalancedBatchSampler(RAVDESS, 32, rank=0, world_size=1)
    whole.set_epoch(1)
    batches = list(whole)
    parts = wrapped(0) + wrapped(1)
    assert {tuple(batch) for batch in parts} == {tuple(batch) for batch in batches}


@pytest.mark.parametrize(
    ("labels", "options", "says"),
    [
        ([0, 0, 2], {}, "class 1"),
        ([0, 1], {"n_classes": 3}, "class 2"),
        ([], {}, "class 0"),
        ([0, 1, 2], {"batch_size": 2}, "batch_size 2"),
        ([0, 1, 2], {"n_classes": 2}, "label 2 is no class index from 0 to 1"),
        ([0, 1, -1], {}, "label -1 is no class index"),
        ([0, 1, 2, 0], {"batch_size": 3, "speakers": list("aaab")}, "speaker b alone has one utterance; .* to 6"),
    ],
)
def test_unusable_input_is_refused(labels, options, says):
    with pytest.raises(InputError, match=says):
        BalancedBatchSampler(labels, **options)
