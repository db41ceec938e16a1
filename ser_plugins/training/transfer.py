"""Transfer of pre-trained weights, with a strict report of what matched."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ser_plugins import configuration
from ser_plugins.errors import InputError
from ser_plugins.model_folder.lineage import LINEAGE
from ser_plugins.model_folder.saving import CHECKPOINT, HYPERPARAMS, WEIGHTS
from ser_plugins.model_folder.source import find_folder
from ser_plugins.models.joint import JointBackbone

logger = logging.getLogger(__name__)
SHOWN = 5  # names of weights that a line of the log lists
# Folders that presets name, and what makes them.
MADE_BY = {
    "pretrained/campplus": "python recipes/convert.py campplus FILE pretrained/campplus",
    "results/mao_pretrain/speakers/1/encoder": (
        "python recipes/pretrain.py hparams/mao_pretrain.yaml --corpus speakers --data_folder FOLDER"
    ),
}
FEATURES = ("compute_features", "mean_var_norm")
KINDS = {
    "matched": "matched",
    "partial": "matched but for the ghost clusters, which keep their initial values",
    "missing": "missing, and keep their initial values",
    "unexpected": "unexpected, and ignored",
    "shape": "of another shape, and keep their initial values",
}


def find_weights(source: str) -> Path:
    """Find the encoder weights of a source.

    Parameters
    ----------
    source : str
        ``model/`` or ``encoder/`` folder of a run, a file of weights, a Hub id, or ``builtin`` for the encoder that the
        package holds.

    Raises
    ------
    InputError
        If there are none.
    """
    if not isinstance(source, str):
        raise InputError(f"--pretrained_encoder {source}: YAML reads this as no text; write ./ before it")
    if Path(source).is_file():
        return Path(source)
    if source in MADE_BY and not Path(source).exists():  # without a look at the Hub, which may have one of the name
        raise InputError(f"there is no folder {source}; make it by {MADE_BY[source]}")
    folder = find_folder(source, [CHECKPOINT, WEIGHTS, HYPERPARAMS, LINEAGE])
    found = next((folder / name for name in (CHECKPOINT, WEIGHTS) if (folder / name).is_file()), None)
    if found is None:
        raise InputError(f"{source} holds no {CHECKPOINT}; give the encoder/ or model/ folder of a run")
    return found


def transfer(encoder: nn.Module, source: str) -> dict[str, list[str]]:
    """Load into ``encoder`` all weights of ``source`` that fit by name and shape.

    Clusters are kept where only the number of ghosts differs; new ghost clusters keep their initial values. Of a
    `JointBackbone`, the weights of a single network go into the branch that does not load its weights itself.

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
    path = find_weights(source)
    given = read_weights(path)
    own = _receiver(encoder, given).state_dict()
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
            more = f": {names[:SHOWN]}{' …' * (len(names) > SHOWN)}" if kind != "matched" else ""
            logger.info("transfer: %d weights %s%s", len(names), KINDS[kind], more)
    return report


def _receiver(encoder: nn.Module, given: Mapping[str, Tensor]) -> nn.Module:
    """Return the module whose weights have the names that they have in the source."""
    backbone = getattr(encoder, "backbone", None)
    if not isinstance(backbone, JointBackbone) or given.keys() & encoder.state_dict().keys():
        return encoder
    networks = backbone.without_source()
    if len(networks) != 1:
        raise InputError(f"one source cannot fill {len(networks)} branches; leave one without weights, or none")
    return nn.ModuleDict({"backbone": networks[0]})


def check_features(tree: Mapping[str, Any], weights: Path) -> None:
    """Stop where a run computes other features than those that an encoder was trained on.

    Another normalisation is logged as a warning: an encoder can be fine-tuned under it.

    Parameters
    ----------
    tree : mapping
        The run's YAML.
    weights : pathlib.Path
        File of the encoder's weights; ``hyperparams.yaml`` next to it contains the features that it was trained on.

    Raises
    ------
    InputError
        If the features differ; the message says in what.
    """
    file = weights.with_name(HYPERPARAMS)
    if not file.is_file():
        return
    theirs, ours = configuration.read(file), configuration.resolve(tree)
    for name in FEATURES:
        was, now = (_text(one[name]) if name in one else None for one in (theirs, ours))
        if was is None or was == now:
            continue
        message = f"the encoder {weights} was trained with {name} {was}, and this run has {now}"
        if name != "compute_features":
            logger.warning("%s", message)
            continue
        raise InputError(f"{message}; give the same, or the file alone in another folder to use its weights anyway")


def _text(section: Any) -> str:
    """Write a section of a YAML: its class and arguments."""
    value = configuration.plain(section)
    return " ".join(map(str, value)).strip() if isinstance(value, tuple) else str(value)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights of an encoder by name.

    Raises
    ------
    InputError
        If the file holds none.
    """
    try:
        given = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{path} is not a checkpoint of weights; give the {CHECKPOINT} of a run") from error
    if isinstance(given, dict) and path.name == WEIGHTS:  # of a whole model
        prefix = "embedding_model."
        given = {name.removeprefix(prefix): one for name, one in given.items() if name.startswith(prefix)}
    if not isinstance(given, dict) or not all(isinstance(weight, Tensor) for weight in given.values()):
        raise InputError(f"{path} is not a checkpoint of weights; give the {CHECKPOINT} of a run")
    return given


def _same_clusters(name: str, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> bool:
    centres = name.split("assignment.", maxsplit=1)[0] + "centres"
    return centres in own and centres in given and own[centres].shape == given[centres].shape
