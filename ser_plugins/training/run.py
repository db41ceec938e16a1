"""One training in a folder: begin or resume, fit, finish."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import speechbrain as sb
from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.train_logger import FileTrainLogger, TrainLogger
from torch import nn

from ser_plugins import configuration
from ser_plugins.audio.stored import keep_features
from ser_plugins.distributed import rank_and_size
from ser_plugins.errors import InputError
from ser_plugins.evaluation.results import METRICS
from ser_plugins.files import atomic_write, lock_folder
from ser_plugins.model_folder.lineage import NO_PRETRAINING, Lineage, Training, read_lineage
from ser_plugins.model_folder.saving import HYPERPARAMS
from ser_plugins.model_folder.whisper import WEIGHTS as SSL_WEIGHTS
from ser_plugins.models.ssl import SSLBackbone
from ser_plugins.training.brain import EncoderBrain
from ser_plugins.training.checkpoints import Stopwatch, WholeCheckpointer
from ser_plugins.training.modules import has_weights
from ser_plugins.training.objective import check_settings
from ser_plugins.training.transfer import check_features, find_weights, transfer

LIBRARIES = ("ser-plugins", "torch", "torchaudio", "speechbrain", "scikit-learn", "numpy")
MODULES = ("compute_features", "mean_var_norm", "embedding_model", "classifier")
FROM_CORPUS = ("labels", "prior")  # keys whose values a run takes from its corpus
ANYWHERE = ("reader", "ckpt_interval_minutes", "train_logger")  # with folders, what may differ when a run is resumed
Hparams = dict[str, Any]
AnyBrain = TypeVar("AnyBrain", bound=EncoderBrain)
logger = logging.getLogger(__name__)


def begin(tree: configuration.Tree, folder: Path) -> Hparams:
    """Seed, build all objects of a run's YAML, and write it into the run's folder.

    Raises
    ------
    InputError
        If the folder holds a run of other hyper-parameters, or an object refuses its arguments.
    """
    check_hyperparams(tree, folder)
    sb.utils.seed.seed_everything(int(tree["seed"]))
    hparams = build(tree)
    run_on_main(atomic_write, [folder / HYPERPARAMS, configuration.dump(configuration.resolve(tree))])
    file = FileTrainLogger(str(folder / "train_log.txt"))
    hparams["train_logger"] = TrainLoggers(*filter(None, [file, hparams["train_logger"]]))
    hparams["stopwatch"] = Stopwatch()
    return hparams


class TrainLoggers(TrainLogger):  # type: ignore[misc]
    """Several of SpeechBrain's loggers as one.

    Parameters
    ----------
    *loggers : speechbrain.utils.train_logger.TrainLogger
        Each logs the same.
    """

    def __init__(self, *loggers: TrainLogger) -> None:
        self.loggers = loggers

    def log_stats(self, *args: Any, **kwargs: Any) -> None:
        """Log an epoch, as `speechbrain.utils.train_logger.TrainLogger.log_stats`."""
        for logger in self.loggers:
            logger.log_stats(*args, **kwargs)


def build(tree: configuration.Tree) -> Hparams:
    """Build all objects of a run's YAML, and check that the training's settings fit together."""
    hparams = configuration.build(tree)
    check_settings(hparams)
    keep_features(hparams["compute_features"], tree["cache_folder"])
    return hparams


def load_pretrained(encoder: nn.Module, tree: configuration.Tree) -> tuple[Lineage, dict[str, list[str]]]:
    """Load the weights of ``pretrained_encoder`` into an encoder.

    Returns
    -------
    lineage : tuple of Training
        The trainings that led to them.
    report : dict
        Names of the weights, by what became of them: see `transfer`.
    """
    source = pretrained_source(tree)
    if source is None:
        return ssl_lineage(tree, encoder), {}
    weights = find_weights(source)
    check_features(tree, weights)
    lineage, report = read_lineage(weights), transfer(encoder, str(weights))
    return (lineage if _is_whole(report, encoder) else (*ssl_lineage(tree, encoder), *lineage)), report


def _is_whole(report: Mapping[str, list[str]], encoder: nn.Module) -> bool:
    """Return whether all weights of an encoder were transferred, and none are of its ``ssl_source``."""
    return len(report.get("matched", ())) == len(encoder.state_dict())


def ssl_lineage(tree: configuration.Tree, module: nn.Module) -> Lineage:
    """Return the trainings of the network that a module has from ``ssl_source``; of a Hub id nothing is known."""
    source = tree.get("ssl_source")
    if source is None or not any(isinstance(one, SSLBackbone) for one in module.modules()):
        return ()
    known = read_lineage(Path(source) / SSL_WEIGHTS)
    return known or (Training("", f"weights of {Path(source).name}", "unknown", None, 0, "", start=str(source)),)


def pretrained_source(tree: Mapping[str, Any]) -> str | None:
    """Source of the pre-trained encoder, if there is one; ``{fold}`` in it becomes the fold's number."""
    source = tree["pretrained_encoder"]
    if source in {None, NO_PRETRAINING}:
        return None
    return str(source).replace("{fold}", str(tree.get("fold"))) if isinstance(source, str) else source


def initial_weights(tree: Mapping[str, Any], encoder: nn.Module, transferred: Mapping[str, list[str]]) -> str:
    """Name the sources of an encoder's weights: the pre-trained encoder, and ``ssl_source`` for what it lacks."""
    sources = [pretrained_source(tree)]
    if not _is_whole(transferred, encoder):
        sources.append(tree.get("ssl_source"))
    return ", ".join(filter(None, sources)) or NO_PRETRAINING


def make_brain(kind: type[AnyBrain], hparams: Hparams, options: Any, folder: Path) -> AnyBrain:
    """Make the Brain of a run, with checkpoints of its modules, epoch and time in ``save/``."""
    modules = {name: hparams[name] for name in MODULES}
    kept = {name: module for name, module in modules.items() if has_weights(module)}
    kept |= {name: hparams[name] for name in ("epoch_counter", "stopwatch")}
    return kind(modules, hparams["opt_class"], hparams, options, WholeCheckpointer(folder / "save", kept))


def fit(brain: EncoderBrain, train_loader: Any, valid_loader: Any) -> dict[str, Any]:
    """Train and load the best epoch; return what validation found there.

    The result has the number of the best epoch as ``epoch``, that of all epochs as ``epochs``, and the ``seconds`` that
    they took.

    A network without weights is not trained: hand-made features, under a classifier that is fitted later.
    """
    if not any(map(has_weights, brain.modules.values())):
        return {"epoch": 0, "epochs": 0, "seconds": 0.0}
    brain.fit(brain.hparams.epoch_counter, train_loader, valid_loader)
    # Loading the best epoch resets both.
    epochs, seconds = brain.hparams.epoch_counter.current, brain.hparams.stopwatch.seconds()
    return {**brain.load_best(), "epochs": epochs, "seconds": seconds}


def has_checkpoint(folder: Path) -> bool:
    """True where a folder holds a run that has trained: a checkpoint, a model folder or the end."""
    return any(folder.glob("save/CKPT*")) or any((folder / name).exists() for name in ("encoder", "model", METRICS))


def check_hyperparams(tree: configuration.Tree, folder: Path, finished: bool = False) -> None:
    """Stop where a folder holds a run of other hyper-parameters; folders of data are not compared.

    Of a ``finished`` run, what its corpus set is not compared either: the corpus is not read again. A run without a
    checkpoint may be replaced by any other.
    """
    if not (has_checkpoint(folder) and (folder / HYPERPARAMS).is_file()):
        return
    theirs = configuration.read(folder / HYPERPARAMS)
    ours = configuration.resolve({**tree, **{key: theirs.get(key) for key in FROM_CORPUS if finished}})
    for key in ours:
        if key in ANYWHERE or key.endswith("_folder") or key not in theirs:
            continue
        if configuration.plain(ours[key]) != configuration.plain(theirs[key]):
            raise InputError(
                f"{folder} holds a run of other hyper-parameters ({key} differs); delete it, or give another "
                "--output_folder"
            )


def exclusive(folder: Path) -> AbstractContextManager[None]:
    """Lock the folder of a run against other runs; all processes of this one may use it."""
    return nullcontext() if rank_and_size()[0] else lock_folder(folder)


def is_finished(tree: configuration.Tree, folder: Path) -> bool:
    """True where a folder holds a finished run.

    Raises
    ------
    InputError
        If it has other hyper-parameters.
    """
    if not (folder / METRICS).is_file():
        return False
    check_hyperparams(tree, folder, finished=True)
    return True


def tell_finished(tree: configuration.Tree, output: Path, settings: Path) -> None:
    """Log that a run is finished; warn where its ``settings``, a hyperparams.yaml, have another folder of data."""
    logger.info("%s is finished; delete it, or give another --output_folder or --seed, to train again", output)
    before = configuration.read(settings).get("data_folder") if settings.is_file() else None
    if before not in (None, tree.get("data_folder")):  # a corpus may have moved, or it is another table
        logger.warning("it was trained with --data_folder %s; the one given now was not read", before)


def finish(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Write ``metrics.json``, which marks a finished run, and delete the checkpoints."""
    atomic_write(folder / METRICS, json.dumps(metrics, indent=2) + "\n")
    shutil.rmtree(folder / "save", ignore_errors=True)


def run_facts(best: Mapping[str, Any]) -> dict[str, Any]:
    """Facts that every run records of itself; ``best`` is the result of `fit`."""
    return {
        "run_id": uuid.uuid4().hex,
        "epochs": best["epochs"],
        "best_epoch": best["epoch"],
        "seconds": round(best["seconds"], 1),
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
