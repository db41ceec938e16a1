"""Batches of a corpus in shards, read from front to back: each utterance once an epoch, over all processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.checkpoints import mark_as_loader, mark_as_saver, register_checkpoint_hooks
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ser_plugins.audio.reading import SAMPLE_RATE
from ser_plugins.corpora.shards import Shard, decode_flac, read_shard
from ser_plugins.distributed import rank_and_size
from ser_plugins.errors import InputError
from ser_plugins.training.data import crop

Example = dict[str, Any]


class CropStream(IterableDataset[list[Example]]):
    """Batches of random crops.

    An epoch has one order of the utterances: the shards are permuted, and the utterances of each shard. Every reader (a
    worker of a process) takes an equal run of them and cuts it into as many batches as the others. Order and crops are
    functions of (seed, epoch) and of how many readers there are.

    Parameters
    ----------
    shards : sequence of Shard
        Shards of the training part.
    classes : sequence of str
        Speakers, in the order of their indices.
    batch_size : int
        Utterances a batch, at most; up to four where a batch of one would be left otherwise.
    crop_seconds : float
        Length of the crops; shorter utterances are repeated first.
    seed : int
        Not negative.

    Raises
    ------
    InputError
        If ``batch_size`` is 1, or there are fewer than two utterances for each reader.
    """

    def __init__(
        self, shards: Sequence[Shard], classes: Sequence[str], batch_size: int, crop_seconds: float, seed: int
    ) -> None:
        if batch_size < 2:
            raise InputError(f"batch_size {batch_size} is too small; give 2 or more")
        self.shards = [shard for shard in shards if shard.samples]
        self.index = {name: i for i, name in enumerate(classes)}
        self.batch_size = batch_size
        self.crop_samples = round(crop_seconds * SAMPLE_RATE)
        self.seed = seed
        self.epoch = 0
        self.done = 0  # batches of this epoch that this process has had

    def batches(self, workers: int) -> int:
        """Batches an epoch of each process with so many workers."""
        samples, readers = sum(shard.samples for shard in self.shards), workers * rank_and_size()[1]
        if samples < 2 * readers:
            raise InputError(f"{samples} utterances are too few for {readers} readers; give fewer --loader_workers")
        pairs = samples // readers // 2  # batch normalisation needs two utterances
        return workers * min(pairs, -(-samples // (readers * self.batch_size)))

    def __iter__(self) -> Iterator[list[Example]]:
        """Yield the remaining batches of an epoch."""
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info is not None else (0, 1)
        # The workers take turns. Resumed, the first turn is that of the worker whose turn it was.
        worker = (worker + self.done) % workers
        done = -(-(self.done - worker) // workers)
        rank, size = rank_and_size()
        bounds = np.linspace(0, sum(shard.samples for shard in self.shards), workers * size + 1).astype(int)
        start, end = (int(bound) for bound in bounds[rank * workers + worker :][:2])
        edges = np.linspace(start, end, self.batches(workers) // workers + 1).astype(int)
        utterances = self._utterances(int(edges[done]), end)
        for count in np.diff(edges)[done:]:
            yield [next(utterances) for _ in range(count)]

    def _utterances(self, start: int, end: int) -> Iterator[Example]:
        """Yield examples ``start`` … ``end`` of the epoch's order."""
        first = 0
        for number in np.random.default_rng((self.seed, self.epoch)).permutation(len(self.shards)):
            shard = self.shards[number]
            wanted = range(max(start - first, 0), min(end - first, shard.samples))
            if wanted:
                rng = np.random.default_rng((self.seed, self.epoch, number))
                order, where = rng.permutation(shard.samples), rng.random(shard.samples)
                content = list(self._read(shard))
                for i in wanted:
                    yield self._example(content[order[i]], float(where[i]))
            first += shard.samples

    def _read(self, shard: Shard) -> Iterable[Any]:
        """Read the utterances of a shard."""
        return read_shard(shard.path)

    def _example(self, utterance: Any, where: float) -> Example:
        name, speaker, data = utterance
        signal = torch.from_numpy(crop(decode_flac(data), self.crop_samples, where))
        return {"id": name, "signal": signal, "label": torch.tensor([self.index[speaker]])}


@register_checkpoint_hooks
class StreamLoader(DataLoader[Any]):
    """Loader of a `CropStream` whose place in the epoch is part of a checkpoint."""

    def __init__(self, stream: CropStream, workers: int = 0) -> None:
        # A loader draws a number at its start; from a generator of its own, and so not from that of the step.
        generator = torch.Generator()
        super().__init__(stream, batch_size=None, collate_fn=PaddedBatch, num_workers=workers, generator=generator)
        self.stream = stream

    def set_epoch(self, epoch: int) -> None:
        """Name the epoch of the next iteration."""
        self.stream.epoch = epoch

    def __len__(self) -> int:
        """Batches an epoch."""
        return self.stream.batches(max(1, self.num_workers))

    def __iter__(self) -> Any:
        """Yield the remaining batches of the epoch."""
        try:
            for batch in super().__iter__():
                self.stream.done += 1
                yield batch
        finally:  # also where the caller takes only some, as statistics of batch normalisation do
            self.stream.done = 0

    @mark_as_saver  # type: ignore[untyped-decorator]
    def _save(self, path: str) -> None:
        with open(path, "w", encoding="utf-8") as file:
            file.write(str(self.stream.done))

    @mark_as_loader  # type: ignore[untyped-decorator]
    def _load(self, path: str, end_of_epoch: bool) -> None:
        with open(path, encoding="utf-8") as file:
            self.stream.done = 0 if end_of_epoch else int(file.read())


class UtteranceStream(IterableDataset[list[Example]]):
    """Batches of whole utterances, each shard by length; without ``classes`` they bear no label."""

    def __init__(self, shards: Sequence[Shard], classes: Sequence[str] = (), batch_size: int = 32) -> None:
        self.shards = shards
        self.index = {name: i for i, name in enumerate(classes)}
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[Example]]:
        """Yield all batches."""
        for shard in self.shards:
            content = [(name, speaker, decode_flac(data)) for name, speaker, data in read_shard(shard.path)]
            content.sort(key=lambda utterance: len(utterance[2]))
            for start in range(0, len(content), self.batch_size):
                yield [self._example(*utterance) for utterance in content[start : start + self.batch_size]]

    def _example(self, name: str, speaker: str, signal: np.ndarray[Any, Any]) -> Example:
        example = {"id": name, "signal": torch.from_numpy(signal)}
        return {**example, "label": torch.tensor([self.index[speaker]])} if self.index else example


def utterance_loader(shards: Sequence[Shard], classes: Sequence[str] = ()) -> DataLoader[Any]:
    """Loader of an `UtteranceStream`."""
    return DataLoader(UtteranceStream(shards, classes), batch_size=None, collate_fn=PaddedBatch)
