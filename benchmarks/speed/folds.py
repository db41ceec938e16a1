"""Folds of S5 in one process: against a process and a cache each, and several processes at once; an epoch each."""

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
SMALL = {"number_of_epochs": 1, "channels": "[8, 8, 16, 16]", "descriptor_size": 16, "embedding_size": 32}
OPTIONS = ["--pretrained_encoder", "none", *(part for key, value in SMALL.items() for part in (f"--{key}", str(value)))]


def call(script: str, *words: str) -> float:
    """Seconds of a recipe in a process of its own."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, f"recipes/{script}.py", *words, *OPTIONS, *corpus.arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    return time.perf_counter() - start


def single(fold: str, folder: Path) -> float:
    """Seconds of one fold from an empty cache."""
    return call("train", "hparams/s5.yaml", "--fold", fold, *places(folder / fold))


def together(folder: Path) -> float:
    """Seconds of all folds by one call from an empty cache."""
    return call("train", "hparams/s5.yaml", "--fold", FOLDS, *places(folder))


def at_once(jobs: int, folder: Path) -> float:
    """Seconds of all folds in processes of their own, so many at a time, from an empty cache."""
    return call("experiments", "table2", "--strategies", "s5", "--folds", FOLDS, "--jobs", str(jobs), *places(folder))


def places(folder: Path) -> list[str]:
    """Where a run's cache and results are."""
    return ["--cache_folder", str(folder / "cache"), "--output_folder", str(folder / "out")]


def run() -> Iterator[Row]:
    """Measure; the recordings themselves are there before."""
    corpus.recipe().read_corpus()
    cores, count = os.cpu_count() or 1, len(FOLDS.split(","))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alone = sum(single(fold, folder / "single") for fold in FOLDS.split(","))
        shared = together(folder / "together")
        one, several = at_once(1, folder / "one"), at_once(cores, folder / "several")
    yield Row(f"{count} folds in one process against one each", f"{shared:.0f} s", f"{alone:.0f} s", alone / shared)
    case = f"{count} folds, {cores} processes at once against one at a time"
    yield Row(case, f"{several:.0f} s", f"{one:.0f} s", one / several)
