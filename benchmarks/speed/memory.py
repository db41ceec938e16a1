"""Resident memory of training for an epoch, against the size of the prepared audio."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ser_plugins.training.emotions import make_loaders, prepare_corpus
from ser_plugins.training.fit import train

from ser_plugins.corpora.corpus import Corpus
from ser_plugins.corpora.folds import fold_parts
from ser_plugins.memory import keep_memory
from ser_plugins.training.brain import EncoderBrain
from ser_plugins.training.recipe import Recipe
from speed.corpus import recipe
from speed.harness import Row, fresh


def epoch(own: Recipe, corpus: Corpus) -> None:
    """Train for an epoch as the recipe does."""
    keep_memory()
    parts = fold_parts(corpus, 1)
    tree = {**own.tree, "labels": list(corpus.labels), "number_of_epochs": 1}
    with tempfile.TemporaryDirectory() as folder:
        train(tree, own.options, Path(folder), None, EncoderBrain, partial(make_loaders, parts=parts))


def run() -> Iterator[Row]:
    """Measure."""
    own = recipe()
    corpus = prepare_corpus(own, own.read_corpus())
    size = sum(Path(path).stat().st_size for path in set(corpus.table["prepared"])) / 2**30
    cost = fresh(epoch, own, corpus)
    assert cost is not None
    peak = cost.peak / 1024
    case = f"peak resident memory of training on {corpus.name}, GiB"
    yield Row(case, f"{peak:.2f} GiB", f"{size:.2f} GiB of audio", peak, most=1.5)
