"""Training to the best validation result, in one process or several, killed and resumed at will."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
from speechbrain.utils.distributed import ddp_barrier, run_on_main
from speechbrain.utils.train_logger import FileTrainLogger
from torch.utils.data import DataLoader

from ser_plugins import configuration
from ser_plugins.audio.handmade import keep_features
from ser_plugins.distributed import rank_and_size
from ser_plugins.errors import InputError
from ser_plugins.evaluation.results import METRICS
from ser_plugins.files import atomic_write, held
from ser_plugins.model_folder.saving import HYPERPARAMS
from ser_plugins.training.brain import EncoderBrain, learns
from ser_plugins.training.checkpoints import Stopwatch, WholeCheckpointer
from ser_plugins.training.recipe import OF_CORPUS
from ser_plugins.training.transfer import check_features, locate, transfer

LIBRARIES = ("ser-plugins", "torch", "torchaudio", "speechbrain", "scikit-learn", "numpy")
logger = logging.getLogger(__name__)
PLACES = ("output_folder", "cache_folder", "shards_folder", "trials_folder", "ckpt_interval_minutes")
Hparams = Mapping[str, Any]
Loaders = Callable[[EncoderBrain, Hparams], tuple[DataLoader[Any], DataLoader[Any]]]


def train(
    tree: configuration.Tree,
    options: Any,
    folder: Path,
    source: str | None,
    brain_class: type[EncoderBrain],
    loaders: Loaders,
) -> tuple[EncoderBrain, dict[str, list[str]]]:
    """Train to the best validation result; an interrupted training goes on.

    Parameters
    ----------
    tree : dict
        The run's YAML.
    options : object
        SpeechBrain's run options.
    folder : pathlib.Path
        Where log, hyper-parameters and checkpoints go.
    source : str, optional
        The encoder that the first weights come from.
    brain_class : type
        What trains.
    loaders : callable
        ``(brain, hparams) -> (training loader, validation loader)``.

    Returns
    -------
    brain : EncoderBrain
        With the best weights, and of the best epoch ``best``: its number and what validation found.
    report : dict
        What was transferred from ``source``.
    """
    path = None if source is None else locate(source)
    if source is not None and path is not None:
        try:
            check_features(tree, path)
        except InputError as error:
            if not Path(source).is_file():
                raise
            logger.warning("%s; the file is given, and taken", error)
    check_hyperparams(tree, folder)
    sb.utils.seed.seed_everything(int(tree["seed"]))
    hparams = configuration.build(tree)
    run_on_main(atomic_write, [folder / HYPERPARAMS, configuration.dump(configuration.resolve(tree))])
    hparams["train_logger"] = FileTrainLogger(str(folder / "train_log.txt"))
    hparams["stopwatch"] = Stopwatch()
    keep_features(hparams["compute_features"], tree["cache_folder"])
    report = {} if path is None else transfer(hparams["embedding_model"], str(path))
    names = ("compute_features", "mean_var_norm", "embedding_model", "classifier")
    weights = {name: hparams[name] for name in ("embedding_model", "classifier") if learns(hparams[name])}
    counters = {name: hparams[name] for name in ("epoch_counter", "stopwatch")}
    checkpointer = WholeCheckpointer(folder / "save", {**weights, **counters})
    brain = brain_class({name: hparams[name] for name in names}, hparams["opt_class"], hparams, options, checkpointer)
    train_loader, valid_loader = loaders(brain, hparams)
    train_loader.generator = torch.Generator()  # it draws a number as it begins: not one that a resumed step would have
    if not weights:  # hand-made features, and a classifier that is fitted
        brain.best = {"epoch": 0}
        return brain, report
    brain.fit(hparams["epoch_counter"], train_loader, valid_loader)
    keys = {f"{hparams['epoch_counter'].direction}_key": brain.criterion}
    best = WholeCheckpointer(folder / "save", brain.settle()).recover_if_possible(**keys)
    ddp_barrier()  # whoever calls may delete the checkpoints: all processes have to have read theirs
    if best is None:
        remedy = "--debug_persistently, too" if brain.debug else "--number_of_epochs 1 or more"
        raise InputError(f"{folder}: no epoch was kept; give {remedy}")
    brain.best = best.meta
    return brain, report


def has_learnt(folder: Path) -> bool:
    """True where a folder holds a run that has come to something: a checkpoint, an encoder or the end."""
    return any(folder.glob("save/CKPT*")) or any((folder / name).exists() for name in ("encoder", METRICS))


def check_hyperparams(tree: configuration.Tree, folder: Path, finished: bool = False) -> None:
    """Stop where a folder holds a run of other hyper-parameters; where files lie is not compared.

    Nor is of a ``finished`` run what its corpus told it: nothing is read anew for it. One that came to nothing, not to
    a checkpoint, is begun anew with any.
    """
    if not (has_learnt(folder) and (folder / HYPERPARAMS).is_file()):
        return
    theirs = configuration.read(folder / HYPERPARAMS)
    other = {*PLACES, *(() if tree.get("multi_stage", True) else ["pretrained_encoder"])}  # S1 takes none
    ours = configuration.resolve({**tree, **{key: theirs.get(key) for key in OF_CORPUS if finished}})
    for key in ours:
        if key in theirs and key not in other and configuration.plain(ours[key]) != configuration.plain(theirs[key]):
            raise InputError(
                f"{folder} was begun with other hyper-parameters ({key} is another); delete it or give another "
                "--output_folder"
            )


def alone_in(folder: Path) -> AbstractContextManager[None]:
    """Hold a folder for this run, all of whose processes may be at work there."""
    return nullcontext() if rank_and_size()[0] else held(folder)


def is_finished(tree: configuration.Tree, folder: Path) -> bool:
    """True where a folder holds the whole of a run.

    Raises
    ------
    InputError
        If it was one of other hyper-parameters.
    """
    if not (folder / METRICS).is_file():
        return False
    check_hyperparams(tree, folder, finished=True)
    return True


def finish(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Write ``metrics.json``, which means that all else is there, and drop the checkpoints."""
    atomic_write(folder / METRICS, json.dumps(metrics, indent=2) + "\n")
    shutil.rmtree(folder / "save", ignore_errors=True)


def run_facts(brain: EncoderBrain) -> dict[str, Any]:
    """What every run tells of itself."""
    return {
        "epochs": brain.hparams.epoch_counter.current,
        "best_epoch": brain.best["epoch"],
        "seconds": round(brain.hparams.stopwatch.seconds(), 1),
        "command": shlex.join(["python", *sys.argv]),
        "commit": commit(),
        "versions": {name: version(name) for name in LIBRARIES},
    }


@cache
def commit() -> str | None:
    """Commit that the package runs from, with ``-dirty`` where files differ from it; None where git knows of none."""
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    try:  # an installed package may lie in a checkout of something else
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], check=True, capture_output=True)
        words = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
