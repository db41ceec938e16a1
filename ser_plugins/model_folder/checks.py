"""Check a model folder before it is published."""

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
from ser_plugins.model_folder.config import read_config
from ser_plugins.model_folder.description import CLASSES, describe
from ser_plugins.model_folder.loading import load
from ser_plugins.model_folder.reference import REFERENCE, Output, compare_outputs, reference_output
from ser_plugins.model_folder.saving import CHECKPOINT, CONFIG, HYPERPARAMS, SECTIONS, WEIGHTS

logger = logging.getLogger(__name__)
FILES = (HYPERPARAMS, CHECKPOINT, "classifier.ckpt", "label_encoder.ckpt", CONFIG, WEIGHTS)
MODULES = set(SECTIONS) - {"audio_normalizer"}
KEYS = {*SECTIONS, "modules", "label_encoder", "pretrainer"}
OPTIONAL_KEYS = {"mean_var_norm_emb"}  # folders of earlier versions do not have it
INTERFACE = (
    *("ser_plugins.model_folder.interface.LabelEncoder", "ser_plugins.model_folder.interface.UnitLength"),
    *("speechbrain.dataio.encoder.CategoricalEncoder", "speechbrain.utils.parameter_transfer.Pretrainer"),
)
TAGS: set[str | None] = {"!ref", "!apply:builtins.len", *(f"!new:{name}" for name in (*CLASSES, *INTERFACE))}
REMEDY = "write the folder again, as docs/publishing.md says"


def check_model_folder(folder: Path) -> dict[str, Any]:
    """Check that a model folder builds only known classes, and is the same model whichever way it is loaded.

    A separate process without network access loads it by ``EncoderClassifier.from_hparams`` and by `ser_plugins.load`.

    Parameters
    ----------
    folder : pathlib.Path
        ``model/`` or ``encoder/`` folder of a run.

    Returns
    -------
    dict
        Its reference output, see `reference_output`: that of ``reference.json``, or, in folders of earlier versions
        that have none, that of the loaded model.

    Raises
    ------
    InputError
        If a check fails; the message says which.
    """
    for name in FILES:
        if not (folder / name).is_file():
            raise InputError(
                f"{folder / name} is missing; give the model/ or encoder/ folder of a run; a model with a class of "
                "your own cannot be published"
            )
    check_yaml(folder)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    words = [sys.executable, "-m", __name__, str(folder)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"])[-1]
        raise InputError(reason.removeprefix("error: "))
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if not (folder / REFERENCE).is_file():
        logger.info("%s has no %s: ", folder, REFERENCE)
        return found
    reference: dict[str, Any] = json.loads((folder / REFERENCE).read_text(encoding="utf-8"))
    return reference


def check_yaml(folder: Path) -> None:
    """Check that ``hyperparams.yaml`` builds only known classes, and the same modules as ``config.json``.

    Raises
    ------
    InputError
        If it does not; the message names the class or the key.
    """
    path = folder / HYPERPARAMS
    if not path.is_file():
        raise InputError(f"{path} is missing; give the model/ or encoder/ folder of a run, or export it again")
    tree = configuration.read(path)
    # Parser events include the tags of keys and of aliased nodes.
    tags = {getattr(event, "tag", None) for event in yaml.parse(path.read_text(encoding="utf-8"))}
    for tag in sorted(map(str, tags - TAGS - {None})):
        raise InputError(f"{path}: {tag} is not a class that may be published; use the classes of ser_plugins")
    wrong = (set(tree) - OPTIONAL_KEYS) ^ KEYS
    wrong = wrong or set(tree["modules"] or ()) ^ MODULES or set(tree["pretrainer"] or ()) ^ {"loadables"}
    if wrong:
        raise InputError(f"{path}: {', '.join(sorted(map(str, wrong)))} missing or unknown; {REMEDY}")
    try:
        modules = {name: describe(tree[name]) for name in SECTIONS}
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if read_config(folder / CONFIG)["modules"] != modules:
        raise InputError(f"{path} and {CONFIG} define different models; {REMEDY}")


def compare_loaders(folder: Path) -> Output:
    """Load a folder both ways, compare the two models and the reference, and return their output."""
    from speechbrain.inference.classifiers import EncoderClassifier  # noqa: PLC0415

    plain = load(folder)
    stock = EncoderClassifier.from_hparams(source=str(folder))
    labels = [model.hparams.label_encoder.ind2lab for model in (stock, plain)]
    if labels[0] != labels[1]:
        raise InputError(f"label_encoder.ckpt and {CONFIG} have different labels; {REMEDY}")
    found = reference_output(stock.mods)
    try:
        compare_outputs(reference_output(plain.mods), found)
    except InputError as error:
        raise InputError(f"{folder}: the .ckpt files and {WEIGHTS} are different models ({error}); {REMEDY}") from error
    if (folder / REFERENCE).is_file():
        try:
            compare_outputs(found, json.loads((folder / REFERENCE).read_text(encoding="utf-8")))
        except (InputError, ValueError, AttributeError) as error:
            raise InputError(f"{folder} is not the model of its {REFERENCE} ({error}); {REMEDY}") from error
    return found


def main(folder: str) -> None:
    """Print the output of a folder's model as JSON, or one line of error."""
    try:
        print(json.dumps(compare_loaders(Path(folder))))
    except InputError as error:
        sys.exit(f"error: {error}")
    except Exception as error:  # from SpeechBrain or a class, about a folder that it cannot load
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        sys.exit(f"error: {folder} cannot be loaded ({reason}); {REMEDY}")


if __name__ == "__main__":
    main(sys.argv[1])
