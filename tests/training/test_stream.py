"""Each utterance once an epoch, whoever reads, wherever the reading was interrupted."""

import math
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_plugins.corpora.shards import Shard
from ser_plugins.errors import InputError
from ser_plugins.training import stream as module
from ser_plugins.training.data import SAMPLE_RATE
from ser_plugins.training.stream import CropStream, StreamLoader, UtteranceStream, utterance_loader

SIZES = [7, 5, 0, 7, 4]
NAMES = [f"{shard}-{i}" for shard, size in enumerate(SIZES) for i in range(size)]


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch):
    """Shards whose utterances are ramps, of 10 to 18 samples, of two speakers."""

    def read(path):
        shard = int(str(path))
        for i in range(SIZES[shard]):
            yield f"{shard}-{i}", f"speaker{i % 2}", bytes([shard, i])

    def decode(data):
        return (100 * data[0] + 10 * data[1] + torch.linspace(0, 1, 10 + 2 * (data[1] % 5))).numpy()

    monkeypatch.setattr(module, "read_shard", read)
    monkeypatch.setattr(module, "decode_flac", decode)


def shards():
    return [Shard(str(number), size) for number, size in enumerate(SIZES)]


def stream(batch_size=4, seed=0):
    return CropStream(shards(), ["speaker0", "speaker1"], batch_size, 8 / SAMPLE_RATE, seed)


def epoch(loader, number, rank=0, size=1, monkeypatch=None):
    if monkeypatch is not None:
        monkeypatch.setattr(module, "rank_and_size", lambda: (rank, size))
    loader.set_epoch(number)
    return list(loader)


def names(batches):
    return [name for batch in batches for name in batch.id]


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [2, 5, 32])
def test_processes_and_workers_share_an_epoch(monkeypatch, size, workers, batch_size):
    read, counts = [], set()
    for rank in range(size):
        loader = StreamLoader(stream(batch_size), workers)
        batches = epoch(loader, 1, rank, size, monkeypatch)
        assert len(batches) == len(loader)
        assert all(2 <= len(batch.id) <= max(batch_size, 4) for batch in batches)
        read += names(batches)
        counts.add(len(batches))
    assert sorted(read) == sorted(NAMES)
    assert len(counts) == 1
    readers = size * max(workers, 1)
    whole, pairs = math.ceil(len(NAMES) / (readers * batch_size)), len(NAMES) // readers // 2
    assert counts.pop() == max(workers, 1) * min(whole, pairs)


def test_too_few_utterances_are_told(monkeypatch):
    monkeypatch.setattr(module, "rank_and_size", lambda: (0, 24))
    with pytest.raises(InputError, match="23 utterances are too few for 24 readers"):
        len(StreamLoader(stream()))
    with pytest.raises(InputError, match="batch_size 1 is too small"):
        stream(batch_size=1)


def test_epochs_differ_and_seeds_do():
    one, other = StreamLoader(stream()), StreamLoader(stream(seed=1))
    first, again, second = epoch(one, 1), epoch(one, 1), epoch(one, 2)
    assert names(first) == names(again)
    assert all(torch.equal(a.signal.data, b.signal.data) for a, b in zip(first, again, strict=True))
    assert len({tuple(names(batches)) for batches in (first, second, epoch(other, 1))}) == 3
    starts = {int(batch.signal.data[batch.id.index("0-4")][0] * 1e3) for batch in first + second if "0-4" in batch.id}
    assert len(starts) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_goes_on_where_a_checkpoint_was_made(tmp_path, workers):
    whole = StreamLoader(stream(2), workers)
    expected = epoch(whole, 3)
    for done in range(len(expected)):
        broken = StreamLoader(stream(2), workers)
        broken.set_epoch(3)
        batches = iter(broken)
        for _ in range(done):
            next(batches)
        broken._save(str(tmp_path / "loader"))
        del batches
        resumed = StreamLoader(stream(2), workers)
        resumed._load(str(tmp_path / "loader"), end_of_epoch=False)
        rest = epoch(resumed, 3)
        assert [batch.id for batch in rest] == [batch.id for batch in expected[done:]]
        for one, other in zip(rest, expected[done:], strict=True):
            assert torch.equal(one.signal.data, other.signal.data)
        assert sorted(names(epoch(resumed, 4))) == sorted(NAMES)


def test_the_next_epoch_begins_at_its_beginning(tmp_path):
    loader = StreamLoader(stream())
    epoch(loader, 1)
    loader._save(str(tmp_path / "loader"))
    resumed = StreamLoader(stream())
    resumed._load(str(tmp_path / "loader"), end_of_epoch=True)
    assert sorted(names(epoch(resumed, 2))) == sorted(NAMES)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 1000), number=st.integers(0, 50))
def test_examples_are_crops_of_their_utterance_with_their_speaker(seed, number):
    for batch in epoch(StreamLoader(stream(seed=seed)), number):
        assert batch.signal.data.shape[1] == 8
        for name, signal, label in zip(batch.id, batch.signal.data, batch.label.data, strict=True):
            shard, i = map(int, name.split("-"))
            step = 1 / (9 + 2 * (i % 5))
            ramp = 100 * shard + 10 * i + torch.linspace(0, 1, 10 + 2 * (i % 5))
            start = round(float(signal[0] - ramp[0]) / step)
            torch.testing.assert_close(signal, ramp[start : start + 8])
            assert label.tolist() == [i % 2]


def test_whole_utterances_come_once_and_by_length():
    batches = list(utterance_loader(shards(), ["speaker0", "speaker1"]))
    assert sorted(names(batches)) == sorted(NAMES)
    for batch in batches:
        lengths = batch.signal.lengths.tolist()
        assert lengths == sorted(lengths) and lengths[-1] == 1
    assert "label" not in next(iter(UtteranceStream(shards())))[0]


@pytest.mark.parametrize("taken", [1, 3, 6])
def test_batches_taken_apart_from_an_epoch_do_not_shorten_it(taken):
    loader = StreamLoader(stream())
    for number in (1, 2):
        assert sorted(names(epoch(loader, number))) == sorted(NAMES)
        assert len(list(islice(loader, taken))) == taken  # as for the statistics of batch normalisation


@pytest.mark.parametrize("batch_size", [2, 11])
def test_no_batch_has_one_utterance(batch_size):
    assert min(len(batch.id) for batch in epoch(StreamLoader(stream(batch_size)), 1)) >= 2  # of 23
