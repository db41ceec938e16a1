"""Run recipes/train.py for many folds, several at a time, each in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from joblib import Parallel, delayed
from tqdm import tqdm

from ser_plugins import configuration
from ser_plugins.corpora.corpus import Corpus
from ser_plugins.training.cross_validation import check_folds, missing_folds, prepare_corpus
from ser_plugins.training.recipe import Recipe


@dataclass(frozen=True)
class Job:
    """A fold to train.

    Attributes
    ----------
    arguments : list of str
        Command line of recipes/train.py.
    folder : pathlib.Path
        Folder of the experiment.
    fold : int
        Number of the fold.
    """

    arguments: list[str]
    folder: Path
    fold: int

    @property
    def log(self) -> Path:
        """File of the process' output."""
        return self.folder / f"fold{self.fold}.log"


def plan(strategies: Iterable[Path], folds: str, arguments: Sequence[str], results: Path) -> list[Job]:
    """List the folds of some strategies that are not finished below ``results``.

    Parameters
    ----------
    strategies : iterable of pathlib.Path
        YAML files.
    folds : str
        As ``--fold`` has them: ``1``, ``1,2,3`` or ``all``.
    arguments : sequence of str
        ``--key value …`` for all strategies.
    results : pathlib.Path
        Folder of ``<strategy>/<corpus>/<seed>/fold<N>/``.

    Raises
    ------
    InputError
        If a finished fold has other hyper-parameters.
    """
    jobs = []
    for file in strategies:
        recipe = Recipe.from_arguments([str(file), "--fold", folds, *arguments])
        folder = recipe.standard_folder(results)
        words = [str(file), "--output_folder", str(folder), *arguments]
        jobs += [Job([*words, "--fold", str(fold)], folder, fold) for fold in missing_folds(recipe, folder)]
    return jobs


def make_ready(jobs: Iterable[Job]) -> None:
    """Read and prepare each corpus of some jobs once, so that their processes do not do it at the same time.

    Raises
    ------
    InputError
        If something is wrong with a corpus, or with the pre-trained encoder of a job; raised before any work.
    """
    corpora: dict[str, tuple[Recipe, Corpus]] = {}
    for job in jobs:
        recipe = Recipe.from_arguments(job.arguments)
        reader = configuration.plain(configuration.resolve(recipe.tree)["reader"])
        key = str([reader, recipe.normalizer().settings(), str(recipe.tree["cache_folder"])])
        if key not in corpora:
            corpora[key] = recipe, recipe.read_corpus()
        corpus = corpora[key][1]
        check_folds(recipe, corpus, [job.fold])
    for recipe, corpus in corpora.values():
        prepare_corpus(recipe, corpus)


def run_jobs(jobs: Sequence[Job], script: Path, count: int) -> list[str]:
    """Run jobs, ``count`` at once; one that fails does not stop the rest. Return what failed, and why.

    SIGTERM ends them all, and this process.

    Parameters
    ----------
    jobs : sequence of Job
        What to run.
    script : pathlib.Path
        recipes/train.py.
    count : int
        Processes at a time, which share the cores.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "train.py").write_text("raise SystemExit('error: no corpus; give --data_folder')")
    >>> [failure] = run_jobs([Job([], folder, 1)], folder / "train.py", 1)
    >>> failure.removeprefix(str(folder)).removesuffix(str(folder / "fold1.log"))
    ', fold 1: error: no corpus; give --data_folder; see '
    """
    threads = str(max((os.cpu_count() or 1) // count, 1))
    environment = {"OMP_NUM_THREADS": threads, "TQDM_MININTERVAL": "30", **os.environ}
    running: set[subprocess.Popen[bytes]] = set()

    def stop(*_: object) -> None:
        for process in list(running):
            process.terminate()
        os._exit(128 + signal.SIGTERM)  # at once: the threads would start what is next

    before = signal.signal(signal.SIGTERM, stop)
    pool = Parallel(count, backend="threading", return_as="generator_unordered")
    words = [sys.executable, str(script)]
    results = pool(delayed(_run)(job, [*words, *job.arguments], environment, running) for job in jobs)
    failed = [failure for failure in tqdm(results, total=len(jobs), desc="runs", unit="run") if failure]
    signal.signal(signal.SIGTERM, before)
    return failed


def _run(job: Job, words: list[str], environment: dict[str, str], running: set[subprocess.Popen[bytes]]) -> str:
    job.folder.mkdir(parents=True, exist_ok=True)
    with job.log.open("w") as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, env=environment)
        running.add(process)
        code = process.wait()
        running.discard(process)
    if code == 0:
        return ""
    if code < 0:
        return f"{job.folder}, fold {job.fold}: killed by signal {-code}; see {job.log}"
    lines = [line for line in job.log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"{job.folder}, fold {job.fold}: {lines[-1] if lines else f'ended with {code}'}; see {job.log}"
