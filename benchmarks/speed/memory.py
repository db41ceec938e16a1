"""Resident memory of one epoch of training, against the size of the prepared audio."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from ser_plugins.configuration import Tree
from ser_plugins.memory import keep_memory
from ser_plugins.training.cross_validation import Parts
from speed.epoch import prepared_fold, train
from speed.harness import Row, fresh


def epoch(tree: Tree, options: Any, parts: Parts) -> None:
    """Train for an epoch as the recipe does."""
    keep_memory()
    train(tree, options, parts, epochs=1)


def run() -> Iterator[Row]:
    """Measure."""
    tree, options, parts = prepared_fold()
    size = sum(Path(path).stat().st_size for path in set(pd.concat(parts.values())["prepared"])) / 2**30
    cost = fresh(epoch, tree, options, parts)
    assert cost is not None
    peak = cost.peak / 1024
    case = f"peak resident memory of training on {tree['corpus']}, GiB"
    yield Row(case, f"{peak:.2f} GiB", f"{size:.2f} GiB of audio", peak, most=1.5)
