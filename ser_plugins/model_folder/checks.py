"""What must hold of a model folder before others are given it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from ser_plugins import configuration
from ser_plugins.errors import InputError
from ser_plugins.model_folder.description import CLASSES, describe
from ser_plugins.model_folder.loading import load, read_config
from ser_plugins.model_folder.reference import REFERENCE, Values, compare, respond
from ser_plugins.model_folder.saving import CHECKPOINT, CONFIG, HYPERPARAMS, SECTIONS, WEIGHTS

logger = logging.getLogger(__name__)
FILES = (HYPERPARAMS, CHECKPOINT, "classifier.ckpt", "label_encoder.ckpt", CONFIG, WEIGHTS)
MODULES = set(SECTIONS) - {"audio_normalizer"}
KEYS = {*SECTIONS, "modules", "label_encoder", "pretrainer"}
STOCK = ("speechbrain.dataio.encoder.CategoricalEncoder", "speechbrain.utils.parameter_transfer.Pretrainer")
TAGS: set[str | None] = {"!ref", "!apply:builtins.len", *(f"!new:{name}" for name in (*CLASSES, *STOCK))}
AGAIN = "write the folder again, as docs/publishing.md says"


def check_folder(folder: Path) -> dict[str, Any]:
    """Check that a model folder runs no code but known classes, and is the same model however it is loaded.

    It is loaded by ``EncoderClassifier.from_hparams`` and by `ser_plugins.load`, in a process of its own, without
    network.

    Parameters
    ----------
    folder : pathlib.Path
        ``model/`` or ``encoder/`` of a run.

    Returns
    -------
    dict
        Its reference: ``embedding`` and ``log_probabilities`` of `reference.waveform`. Where the folder was written
        before there was one, it is what the loaded model gives.

    Raises
    ------
    InputError
        If it is no such folder; the message says in what.
    """
    for name in FILES:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing; give the model/ or encoder/ folder of a run, or {AGAIN}")
    check_yaml(folder)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    words = [sys.executable, "-m", __name__, str(folder)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"])[-1]
        raise InputError(reason.removeprefix("error: "))
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if not (folder / REFERENCE).is_file():
        logger.info("%s holds no %s: what it gives today becomes its reference", folder, REFERENCE)
        return found
    reference: dict[str, Any] = json.loads((folder / REFERENCE).read_text(encoding="utf-8"))
    return reference


def check_yaml(folder: Path) -> None:
    """Check that ``hyperparams.yaml`` names known classes alone, and the model that ``config.json`` describes.

    Raises
    ------
    InputError
        If not; the message names what is too much.
    """
    path = folder / HYPERPARAMS
    tree = configuration.read(path)
    # Events have the tags of keys and of all that an alias hides, too; what needs no tag has none.
    tags = {getattr(event, "tag", None) for event in yaml.parse(path.read_text(encoding="utf-8"))}
    for tag in sorted(map(str, tags - TAGS - {None})):
        raise InputError(f"{path}: {tag} is none of the classes that may be published; use those of ser_plugins")
    wrong = set(tree) ^ KEYS or set(tree["modules"] or ()) ^ MODULES or set(tree["pretrainer"] or ()) ^ {"loadables"}
    if wrong:
        raise InputError(f"{path}: {', '.join(sorted(map(str, wrong)))} missing or too much; {AGAIN}")
    try:
        described = {name: describe(tree[name]) for name in SECTIONS}
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if read_config(folder / CONFIG)["modules"] != described:
        raise InputError(f"{path} and {CONFIG} describe two models; {AGAIN}")


def respond_both(folder: Path) -> Values:
    """Load a folder both ways, compare the two and the reference, and return what they give."""
    from speechbrain.inference.classifiers import EncoderClassifier  # noqa: PLC0415

    plain = load(folder)
    stock = EncoderClassifier.from_hparams(source=str(folder))
    labels = [model.hparams.label_encoder.ind2lab for model in (stock, plain)]
    if labels[0] != labels[1]:
        raise InputError(f"label_encoder.ckpt and {CONFIG} name different classes; {AGAIN}")
    found = respond(stock.mods)
    try:
        compare(respond(plain.mods), found)
    except InputError as error:
        raise InputError(f"{folder}: the .ckpt files and {WEIGHTS} hold two models ({error}); {AGAIN}") from error
    if (folder / REFERENCE).is_file():
        try:
            compare(found, json.loads((folder / REFERENCE).read_text(encoding="utf-8")))
        except (InputError, ValueError, AttributeError) as error:
            raise InputError(f"{folder} is not the model that {REFERENCE} is of ({error}); {AGAIN}") from error
    return found


def main(folder: str) -> None:
    """Print what a folder's model gives as JSON."""
    try:
        print(json.dumps(respond_both(Path(folder))))
    except InputError as error:
        sys.exit(f"error: {error}")
    except Exception as error:  # whatever SpeechBrain or a class says of a folder that it cannot load
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        sys.exit(f"error: {folder} cannot be loaded ({reason}); {AGAIN}")


if __name__ == "__main__":
    main(sys.argv[1])
