"""The runs that led to a model, each of which began with the weights of the one before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ser_plugins import configuration
from ser_plugins.evaluation.results import METRICS, Run, read_metrics
from ser_plugins.model_folder.saving import HYPERPARAMS

RANDOM, OWN_SPEAKERS = "none", "speakers of the training part"


@dataclass(frozen=True)
class History:
    """What is known of how a model came to be.

    Attributes
    ----------
    runs : list of Run
        The runs that led to it, the last one first.
    start : str
        What the first of them began with, as it says: ``RANDOM``, ``OWN_SPEAKERS``, a folder or a Hub id; "" where no
        run is known.
    folder : pathlib.Path
        Where that lies, if it was found.
    """

    runs: list[Run]
    start: str
    folder: Path


def history(folder: Path) -> History:
    """Follow a model back through what the ``metrics.json`` beside it and beside its first weights say.

    Parameters
    ----------
    folder : pathlib.Path
        ``model/`` or ``encoder/`` of a run.
    """
    runs: list[Run] = []
    start = ""
    seen: set[Path] = set()  # another folder may have the name that a run's first weights had
    while folder.resolve() not in seen and ((run := folder.resolve().parent) / METRICS).is_file():
        seen.add(folder.resolve())
        metrics = read_metrics(run)
        runs.append(Run(run, metrics))
        start = metrics.get("pretrained_encoder") or hyperparameter(run, "pretrained_encoder") or RANDOM
        found = None if start in {RANDOM, OWN_SPEAKERS} else _find(start, folder)
        if found is None:
            break
        folder = found
    return History(runs, start, folder)


def _find(start: str, folder: Path) -> Path | None:
    """Find the folder that the run of a model began with: named as it was given, relative to where it was started."""
    places = [*folder.absolute().parent.parents, *folder.resolve().parent.parents, Path.cwd()]
    found = next((place / start for place in places if (place / start).exists()), None)
    return found.parent if found is not None and found.is_file() else found  # a file is the weights themselves


def hyperparameter(run: Path, name: str) -> Any:
    """Read a key of a run's ``hyperparams.yaml``; None where there is none."""
    file = run / HYPERPARAMS
    return configuration.read(file).get(name) if file.is_file() else None
