"""The configuration of a model folder, and the bytes of its weights. PyTorch is not imported."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ser_plugins.errors import InputError
from ser_plugins.model_folder.layout import CONFIG, WEIGHTS

REMEDY = "download or export the folder again"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} is missing; give the model/ or encoder/ folder of a run") from error


def read_config(path: Path) -> Mapping[str, Any]:
    """Read a folder's ``config.json``: its modules, labels and checksum."""
    data = _read(path)
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON; {REMEDY}") from error
    if not isinstance(config, Mapping) or "modules" not in config:
        raise InputError(
            f"{path} describes no modules; a class may be your own: load the folder by EncoderClassifier.from_hparams"
        )
    return config


def checksum_of(config: Mapping[str, Any]) -> str:
    """SHA-256 of the content of a ``config.json``, which has that of the weights."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def read_weights(path: Path, config: Mapping[str, Any]) -> bytes:
    """Read the weights after comparing their checksum with that of ``config.json``."""
    data = _read(path)  # read once: the checked bytes are the loaded ones
    if config.get("sha256") != {WEIGHTS: hashlib.sha256(data).hexdigest()}:
        raise InputError(f"{path} does not have the checksum in {CONFIG}; {REMEDY}")
    return data
