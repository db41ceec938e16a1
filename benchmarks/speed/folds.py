"""Folds of a small S5 in one process: against one process and cache each, and several processes at once; one epoch."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from speed import corpus
from speed.harness import Row

FOLDS = "1,2,3,4,5,6,7,8,9,10"
SMALL = ["--pretrained_encoder", "none", "--number_of_epochs", "1", "--embedding_size", "32"]
OPTIONS = [*SMALL, "--channels", "[8, 8, 16, 16]"]
RECIPES = Path(__file__).parents[2] / "recipes"


def call(script: str, *words: str, folder: Path) -> float:
    """Return the seconds of a recipe in a fresh process; ``folder`` takes its cache and results."""
    places = ["--cache_folder", str(folder / "cache"), "--output_folder", str(folder / "out")]
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, str(RECIPES / f"{script}.py"), *words, *places, *OPTIONS, *corpus.arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    return time.perf_counter() - start


def train(folds: str, folder: Path) -> float:
    """Return the seconds of folds in one process, from an empty cache."""
    return call("train", "s5", "--fold", folds, folder=folder)


def at_once(jobs: int, folder: Path) -> float:
    """Return the seconds of all folds in processes of their own, ``jobs`` at a time, from an empty cache."""
    return call("experiments", "table2", "--strategies", "s5", "--folds", FOLDS, "--jobs", str(jobs), folder=folder)


def run() -> Iterator[Row]:
    """Measure; the recordings exist before."""
    corpus.recipe().read_corpus()
    cores, folds = os.cpu_count() or 1, FOLDS.split(",")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alone = sum(train(fold, folder / fold) for fold in folds)
        shared = train(FOLDS, folder / "together")
        one, several = at_once(1, folder / "one"), at_once(cores, folder / "several")
    case = f"{len(folds)} folds in one process against one each"
    yield Row(case, f"{shared:.0f} s", f"{alone:.0f} s", alone / shared)
    case = f"{len(folds)} folds, {cores} processes at once against one at a time"
    yield Row(case, f"{several:.0f} s", f"{one:.0f} s", one / several)
