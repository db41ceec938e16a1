"""A run's YAML: layers merged into one HyperPyYAML document, then built."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from copy import deepcopy
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ser_plugins.errors import InputError

Tree = dict[str, Any]


def read(path: str | Path) -> Tree:
    r"""Read a YAML file, tags kept.

    A key ``include`` names a file beside it whose keys come first; ``extends`` one that this file changes, and that
    must have all of its keys.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "base.yaml").write_text("clusters: 8\nghost_clusters: 0")
    >>> _ = (folder / "s3.yaml").write_text("extends: base.yaml\nghost_clusters: 2")
    >>> dict(read(folder / "s3.yaml"))
    {'clusters': 8, 'ghost_clusters': 2}
    """
    path = Path(path)
    try:
        tree = YAML().load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); give a file of hparams/") from error
    except YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; give a file of hparams/") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path} holds no keys; give a file of hparams/")
    if "include" in tree:
        tree = {**read(path.parent / tree.pop("include")), **tree}
    if "extends" not in tree:
        return dict(tree)
    return merge(read(path.parent / tree.pop("extends")), tree, str(path))


def merge(base: Mapping[str, Any], changes: Mapping[str, Any], origin: str) -> Tree:
    """Replace top-level keys of ``base``; a key that it does not have is a typo.

    Raises
    ------
    InputError
        If a key of ``changes`` is unknown; the message names the nearest known ones.
    """
    for key in changes:
        if key not in base:
            near = difflib.get_close_matches(str(key), list(base), 3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known keys: {', '.join(base)}"
            raise InputError(f"{origin}: unknown key {key!r}; {hint}")
    return {**base, **changes}


def dump(tree: Mapping[str, Any]) -> str:
    """Write a tree as HyperPyYAML text."""
    text = StringIO()
    YAML().dump(deepcopy(dict(tree)), text)
    return text.getvalue()


def plain(value: Any) -> Any:
    """Values of a tree without comments, a tag and what it is for as a pair: what compares as it is meant.

    Example
    -------
    >>> plain(YAML().load("norm: !new:Norm {axis: bin}  # not of a frame"))
    {'norm': ('!new:Norm', {'axis': 'bin'})}
    """
    tag = getattr(getattr(value, "tag", None), "value", None)
    if isinstance(value, Mapping):
        inside: Any = {key: plain(one) for key, one in value.items()}
    elif isinstance(value, list):
        inside = [plain(one) for one in value]
    else:
        inside = getattr(value, "value", value) if tag else value
    return (tag, inside) if tag else inside


def resolve(tree: Mapping[str, Any]) -> Tree:
    """Put the referenced values in the place of their references; nothing is built."""
    return dict(YAML().load(resolve_references(dump(tree)).getvalue()))


def build(tree: Mapping[str, Any]) -> Tree:
    """Build all objects of a tree.

    Raises
    ------
    InputError
        If a class does not exist or refuses its arguments; the message says which.
    """
    try:
        return dict(load_hyperpyyaml(dump(tree)))
    except InputError:
        raise
    except (ImportError, ValueError, TypeError, AttributeError, RuntimeError, yaml.YAMLError, YAMLError) as error:
        # HyperPyYAML puts the name of the class before the arguments of an error.
        marked = isinstance(error, (yaml.YAMLError, YAMLError))
        reason = str(error) if marked else ": ".join(map(str, error.args))
        raise InputError(f"the hyper-parameters cannot be built: {' '.join(reason.split())}") from error
