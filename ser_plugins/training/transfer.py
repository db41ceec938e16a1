"""Weights from another run, with a strict report of what was matched."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ser_plugins import configuration
from ser_plugins.corpora.folds import training_ids
from ser_plugins.errors import InputError
from ser_plugins.evaluation.results import Run
from ser_plugins.model_folder.loading import read_config
from ser_plugins.model_folder.saving import CHECKPOINT, CONFIG, HYPERPARAMS
from ser_plugins.model_folder.source import find_folder
from ser_plugins.training.lineage import history, hyperparameter

logger = logging.getLogger(__name__)
FEATURES = ("compute_features", "mean_var_norm")
KINDS = {
    "matched": "matched",
    "partial": "matched but for the ghost clusters, which start fresh",
    "missing": "missing, and start fresh",
    "unexpected": "unexpected, and left out",
    "shape": "of another shape, and start fresh",
}


def locate(source: str) -> Path:
    """Find the encoder's checkpoint of a folder, a file or a Hub id."""
    if Path(source).is_file():
        return Path(source)
    folder = find_folder(source, [CHECKPOINT, HYPERPARAMS])
    if not (folder / CHECKPOINT).is_file():
        raise InputError(f"{source} holds no {CHECKPOINT}; give the encoder/ or model/ folder of a run")
    return folder / CHECKPOINT


def transfer(encoder: nn.Module, source: str) -> dict[str, list[str]]:
    """Load into ``encoder`` all weights of ``source`` that fit by name and shape.

    Clusters are kept where only the number of ghosts differs: the clusters that are new start fresh.

    Parameters
    ----------
    encoder : torch.nn.Module
        The encoder, as built.
    source : str
        Folder with ``embedding_model.ckpt``, the checkpoint itself, or a Hub id.

    Returns
    -------
    dict
        Names of the weights that were ``matched``, ``partial``, ``missing``, ``unexpected`` and of another ``shape``.

    Raises
    ------
    InputError
        If nothing is found at the source, or nothing of it fits.
    """
    path = locate(source)
    given = _weights(path)
    own = encoder.state_dict()
    report: dict[str, list[str]] = {kind: [] for kind in KINDS}
    with torch.no_grad():
        for name, weight in own.items():
            if name not in given:
                report["missing"].append(name)
            elif given[name].shape == weight.shape:
                weight.copy_(given[name])
                report["matched"].append(name)
            elif ".assignment." in name and _same_clusters(name, own, given):
                rows = min(len(weight), len(given[name]))
                weight[:rows] = given[name][:rows]
                report["partial"].append(name)
            else:
                report["shape"].append(name)
    report["unexpected"] = sorted(set(given) - set(own))
    if not any(name.endswith("weight") for name in report["matched"]):
        raise InputError(f"no weight of {path} fits this encoder; give an encoder of the same network")
    for kind, names in report.items():
        if names:
            logger.info("transfer: %d weights %s%s", len(names), KINDS[kind], "" if kind == "matched" else f": {names}")
    return report


def check_features(tree: Mapping[str, Any], checkpoint: Path) -> None:
    """Stop where a run computes other features than those that an encoder was trained on.

    Parameters
    ----------
    tree : mapping
        The run's YAML.
    checkpoint : pathlib.Path
        The encoder's, as `locate` finds it; ``hyperparams.yaml`` beside it says what it was trained on.

    Raises
    ------
    InputError
        If they differ; the message says in what.
    """
    file = checkpoint.with_name(HYPERPARAMS)
    if not file.is_file():
        return
    theirs, ours = configuration.read(file), configuration.resolve(tree)
    for name in FEATURES:
        was, now = (_text(one[name]) if name in one else None for one in (theirs, ours))
        if was is not None and was != now:
            raise InputError(
                f"the encoder {checkpoint} was trained with {name} {was}, and this run has {now}; give the same, "
                "or give the file itself, not its folder, to take its weights all the same"
            )


def check_unheard(checkpoint: Path, held_out: pd.DataFrame) -> None:
    """Stop where an encoder, or one that it began with, was trained on what a fold validates or tests on.

    Parameters
    ----------
    checkpoint : pathlib.Path
        The encoder's, as `locate` finds it; ``metrics.json`` and ``folds.csv`` of the runs that led to it say what they
        were trained on, where they are where a run leaves them.
    held_out : pandas.DataFrame
        ``id`` and ``speaker`` of the utterances, each after its corpus' name and a hyphen.

    Raises
    ------
    InputError
        If it knows some of them, or learnt to tell their speakers apart.
    """
    past = history(checkpoint.parent)
    heard = {run.folder: _heard(run, held_out) for run in past.runs}
    stage = past.folder.parent  # a fold's own first stage is no run, but tells whose voices it learnt
    if hyperparameter(stage, "column") == "speaker":
        names, corpus = hyperparameter(stage, "labels"), hyperparameter(stage, "corpus")
        heard[stage] = held_out["speaker"].isin([*names, *(f"{corpus}-{name}" for name in names)])
    for folder, marked in heard.items():
        known = sorted(held_out.loc[marked, "id"])
        if known:
            raise InputError(
                f"the encoder {checkpoint} was trained on {len(known)} utterances that are validated or tested on "
                f"here, or on their speakers, {known[0]} among them, in {folder}; give that of the same fold, "
                "…/fold{fold}/…, or one of another corpus"
            )


def _heard(run: Run, held_out: pd.DataFrame) -> pd.Series[bool]:
    """Mark the utterances that a run was trained on, or the speakers of, as far as is known."""
    corpus = run.metrics["corpus"]
    prefix = "" if "+" in corpus or "corpora" in run.metrics else f"{corpus}-"  # a merged one has it already
    column, names = "id", set[str]()
    if "eer" in run.metrics:
        config = run.folder / "encoder" / CONFIG
        column, names = "speaker", set(read_config(config)["labels"]) if config.is_file() else names
    elif (folds := run.folder.parent / "folds.csv").is_file():
        names = training_ids(folds, run.fold)
    return held_out[column].isin([f"{prefix}{name}" for name in names])


def _text(section: Any) -> str:
    """Write a section of a YAML: its tag, and what it is for."""
    value = configuration.plain(section)
    return " ".join(map(str, value)).strip() if isinstance(value, tuple) else str(value)


def _weights(path: Path) -> dict[str, Tensor]:
    try:
        given = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{path} is not a checkpoint of weights; give the {CHECKPOINT} of a run") from error
    if not isinstance(given, dict) or not all(isinstance(weight, Tensor) for weight in given.values()):
        raise InputError(f"{path} is not a checkpoint of weights; give the {CHECKPOINT} of a run")
    return given


def _same_clusters(name: str, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> bool:
    centres = name.split("assignment.", maxsplit=1)[0] + "centres"
    return centres in own and centres in given and own[centres].shape == given[centres].shape
