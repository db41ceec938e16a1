"""Mini-batches that hold every emotion."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from ser_plugins.distributed import rank_and_size
from ser_plugins.errors import InputError


class BalancedBatchSampler(Sampler[list[int]]):
    """P × K batches: all P classes, K = ⌊batch_size / P⌋ utterances of each, the rest from classes in turn.

    The metric losses mine within a mini-batch, which must therefore hold each emotion more than once (the paper's batch
    of 32 gives K = 4 for the eight emotions of RAVDESS).

    The utterances of a class are drawn without replacement until none is left, then all again: small classes repeat.
    The batches of an epoch are a function of (seed, epoch) and nothing else, so a run that is resumed in mid-epoch sees
    the same ones. Each iteration is a new epoch; ``set_epoch`` names the next one. (SpeechBrain's Brain calls it under
    DDP only: without a counter of its own the sampler would give one process the same batches in every epoch.)

    Arguments
    ---------
    labels : sequence of int
        Class index of each utterance.
    batch_size : int
        Utterances a batch.
    seed : int
        Not negative.
    n_batches : int, optional
        Batches an epoch, all ranks together; default: as many as hold every utterance once, were classes of one size.
        Rounded up to a multiple of the number of ranks.
    n_classes : int, optional
        Number of classes; default: the largest label + 1.
    rank, world_size : int, optional
        Which share of an epoch's batches to give; default: as torch.distributed says if initialised, else all of them.
        SpeechBrain's Brain splits any ``batch_sampler`` among the ranks by itself: give it ``rank=0, world_size=1``.
    speakers : sequence, optional
        Who says each utterance. The batches then are of B speakers and P classes, B = ⌊batch_size / P⌋: an utterance of
        each class that a speaker has, so that what is left of each, less their mean, is the emotion. Speakers are drawn
        as the utterances of a class are; where they lack classes a batch is smaller.

    Raises
    ------
    InputError
        A class has no utterance, a label is none of ``n_classes``, ``batch_size`` is less than the number of classes,
        or a speaker has one class and would be a batch alone.

    Example
    -------
    >>> sampler = BalancedBatchSampler([0, 0, 0, 0, 1, 1], batch_size=4)
    >>> len(sampler)
    2
    >>> [sorted(sampler.labels[batch].tolist()) for batch in sampler]
    [[0, 0, 1, 1], [0, 0, 1, 1]]
    """

    def __init__(
        self,
        labels: Sequence[int],
        batch_size: int = 32,
        seed: int = 0,
        n_batches: int | None = None,
        n_classes: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        speakers: Sequence[Any] | None = None,
    ) -> None:
        if not isinstance(batch_size, int) or batch_size < 1:
            raise InputError(f"batch_size must be a whole number above 0, got {batch_size!r}")
        self.labels = np.asarray(labels, dtype=np.int64)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.n_batches = math.ceil(len(self.labels) / batch_size) if n_batches is None else n_batches
        self.rank = rank_and_size()[0] if rank is None else rank
        self.world_size = rank_and_size()[1] if world_size is None else world_size
        n_classes = int(self.labels.max(initial=-1)) + 1 if n_classes is None else n_classes
        self.members = [np.flatnonzero(self.labels == label) for label in range(n_classes)]
        self.speakers = None if speakers is None else np.asarray(speakers)
        if strange := [label for label in self.labels.tolist() if not 0 <= label < n_classes]:
            raise InputError(f"label {strange[0]} is no class index from 0 to {n_classes - 1}")
        empty = [label for label, members in enumerate(self.members) if not len(members)]
        if empty or not n_classes:
            raise InputError(
                f"class {empty[0] if empty else 0} has no utterance in the training part; leave its label out"
            )
        if batch_size < n_classes:
            raise InputError(
                f"batch_size {batch_size} cannot hold all {n_classes} classes; raise it to {2 * n_classes}"
            )
        if self.speakers is not None and batch_size < 2 * n_classes:  # one speaker a batch
            pairs = set(zip(self.speakers.tolist(), self.labels.tolist(), strict=True))
            speaker, count = Counter(speaker for speaker, _ in pairs).most_common()[-1]
            if count == 1:
                remedy = f"raise batch_size {batch_size} to {2 * n_classes}"
                raise InputError(f"a batch of speaker {speaker} alone has one utterance; {remedy}")

    def set_epoch(self, epoch: int) -> None:
        """Name the epoch of the next iteration; the ones after it count on."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches an epoch of this rank."""
        return math.ceil(self.n_batches / self.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of the next epoch, as lists of indices in a random order."""
        rng = np.random.default_rng((self.seed, self.epoch))
        self.epoch += 1
        batches = self._of_classes(rng) if self.speakers is None else self._of_speakers(rng, self.speakers)
        # Every rank makes every batch, so that together they walk through one order, and keeps its own.
        for number in range(len(self) * self.world_size):
            batch = next(batches)
            rng.shuffle(batch)
            if number % self.world_size == self.rank:
                yield batch

    def _of_classes(self, rng: np.random.Generator) -> Iterator[list[int]]:
        utterances = [_endless(members, rng) for members in self.members]
        turn = _endless(np.arange(len(self.members)), rng)
        share, rest = divmod(self.batch_size, len(self.members))
        while True:
            classes = [*list(range(len(self.members))) * share, *(next(turn) for _ in range(rest))]
            yield [next(utterances[label]) for label in classes]

    def _of_speakers(self, rng: np.random.Generator, speakers: NDArray[Any]) -> Iterator[list[int]]:
        names = np.unique(speakers)
        said = [[members[speakers[members] == name] for members in self.members] for name in names]
        utterances = [[_endless(some, rng) for some in classes if len(some)] for classes in said]
        turn = _endless(np.arange(len(names)), rng)
        while True:
            chosen = [next(turn) for _ in range(self.batch_size // len(self.members))]
            yield [next(draw) for speaker in chosen for draw in utterances[speaker]]


def _endless(items: np.ndarray, rng: np.random.Generator) -> Iterator[int]:
    """Yield the items in random order, again and again, each once a round."""
    while True:
        yield from rng.permutation(items).tolist()
