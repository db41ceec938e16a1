"""Resident memory of training for an epoch, against the size of the prepared audio."""

import resource
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ser_plugins.corpora.folds import fold_parts
from ser_plugins.training.brain import EncoderBrain
from ser_plugins.training.cli import keep_memory
from ser_plugins.training.emotions import make_loaders, prepare_corpus, with_audio
from ser_plugins.training.fit import train
from ser_plugins.training.recipe import Recipe
from speed.corpus import recipe
from speed.harness import Row, fresh

GIBIBYTE = 2**20  # in the kibibytes of getrusage


def epoch(own: Recipe, prepared: dict[str, str]) -> None:
    """Train for an epoch as the recipe does; its process' peak is what counts."""
    keep_memory()
    corpus = own.read_corpus()
    parts = {name: with_audio(table, prepared) for name, table in fold_parts(corpus, 1).items()}
    tree = {**own.tree, "labels": list(corpus.labels), "number_of_epochs": 1}
    with tempfile.TemporaryDirectory() as folder:
        train(tree, own.options, Path(folder), None, EncoderBrain, partial(make_loaders, parts=parts))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIBIBYTE
    Path(own.tree["cache_folder"], "peak").write_text(str(peak))


def run() -> Iterator[Row]:
    """Measure."""
    own = recipe()
    prepared = prepare_corpus(own, own.read_corpus())
    size = sum(Path(path).stat().st_size for path in set(prepared.values())) / 2**30
    assert fresh(epoch, own, prepared) is not None
    peak = float(Path(own.tree["cache_folder"], "peak").read_text())
    yield Row("peak resident memory of training, GiB", f"{peak:.2f} GiB", f"{size:.2f} GiB of audio", peak, most=1.5)
