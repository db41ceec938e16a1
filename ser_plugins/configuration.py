"""A run's YAML: presets found by name, layers merged by one rule, written as plain HyperPyYAML and built."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from importlib import import_module
from io import StringIO
from pathlib import Path
from pydoc import ErrorDuringImport, locate
from typing import Any

import yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ser_plugins.errors import InputError

Tree = dict[str, Any]
REFERENCE = re.compile(r"<(\w+)>")
NAMED = re.compile(r"!(?:new|name|apply):([\w.]+\.\w+)")  # classes and functions
READ_BY_CODE = {"seed", "labels", "speaker_normalization"}  # besides references
HERE = Path(__file__).parent
# The wheel holds the presets inside the package; a checkout has them in hparams/.
HPARAMS = HERE / "hparams" if (HERE / "hparams").is_dir() else HERE.parent / "hparams"


def find_preset(name: str | Path, folder: Path | None = None) -> Path:
    """Find a YAML: a path as it is, a file in ``folder``, or a preset of the package by its name.

    Parameters
    ----------
    name : str or pathlib.Path
        ``my.yaml``, ``hparams/s5.yaml``, ``s5.yaml`` or ``s5``.
    folder : pathlib.Path, optional
        Folder of the file that names it; looked into first.

    Raises
    ------
    InputError
        If there is no such file; the message lists the presets.

    Example
    -------
    >>> find_preset("s5").name
    's5.yaml'
    """
    path = Path(name)
    names = [path] if path.suffix == ".yaml" else [path, path.with_suffix(".yaml")]
    folders = [*([folder] if folder is not None else []), Path(), HPARAMS]
    for place in folders:
        for one in names:
            if (place / one).is_file():
                return place / one
    if path.parent == Path("hparams") and (HPARAMS / path.name).is_file():  # outside of a checkout
        return HPARAMS / path.name
    known = ", ".join(sorted(file.stem for file in HPARAMS.glob("*.yaml")))
    raise InputError(f"cannot read {name} (no such file); give a YAML file or a preset: {known}")


def read_layers(path: Path, above: tuple[Path, ...] = ()) -> tuple[Tree, Tree]:
    """Read a YAML file and what it extends; return the keys of the base and those of the strategy.

    A file that sets ``strategy`` is a strategy, and so is each file that extends it; files below are the base. A
    strategy changes keys of what it extends. It adds a key only where one of its own values refers to it.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    above : tuple of pathlib.Path
        Files that extend it.

    Raises
    ------
    InputError
        If a file is missing, is no YAML mapping, extends itself, or sets a key that nothing uses.
    """
    own = _read_file(path)
    if "include" in own:
        raise InputError(f"{path}: 'include' is no longer read; write extends: FILE as its first key")
    if "extends" not in own:
        return ({}, own) if "strategy" in own else (own, {})
    name = own.pop("extends")
    if not isinstance(name, str):
        raise InputError(f"{path}: extends takes the name of one YAML file, not {name!r}")
    parent = find_preset(name, path.parent)
    family = (*above, path)
    if parent.resolve() in {file.resolve() for file in family}:
        raise InputError(f"{path} extends {name}, which extends it in turn; remove one of the two")
    base, strategy = read_layers(parent, family)
    if not strategy and "strategy" not in own:
        return {**base, **own}, {}
    references = dump(own)
    new = {"strategy", *(key for key in own if f"<{key}>" in references)}
    _check_known({**base, **strategy, **dict.fromkeys(new)}, own, str(path))
    return base, {**strategy, **own}


def read(name: str | Path) -> Tree:
    r"""Read a YAML file with all that it extends, tags kept.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "base.yaml").write_text("clusters: 8\nghost_clusters: 0\nstrategy: S1")
    >>> _ = (folder / "s3.yaml").write_text("extends: base.yaml\nghost_clusters: 2")
    >>> dict(read(folder / "s3.yaml"))
    {'clusters': 8, 'ghost_clusters': 2, 'strategy': 'S1'}
    """
    base, strategy = read_layers(find_preset(name))
    return {**base, **strategy}


def compose(name: str | Path, corpus: str | None = None, changes: Mapping[str, Any] | None = None) -> Tree:
    """Merge base, corpus settings, a strategy's own keys and changes, each over the one before.

    Parameters
    ----------
    name : str or pathlib.Path
        The strategy: a YAML file or the name of a preset.
    corpus : str, optional
        Name of a file of ``hparams/corpora/``; the strategy's own key ``corpus`` if not given.
    changes : mapping, optional
        Keys of the command line.

    Returns
    -------
    dict
        The whole document; `dump` writes it as HyperPyYAML text that ``load_hyperpyyaml`` builds.

    Raises
    ------
    InputError
        If the file is no strategy, the corpus is unknown, or a key is unknown.

    Example
    -------
    >>> tree = compose("s5", "synthetic", {"lr": 0.01})
    >>> tree["strategy"], tree["corpus"], tree["lr"]
    ('S5', 'synthetic', 0.01)
    """
    path = find_preset(name)
    base, strategy = read_layers(path)
    if "strategy" not in strategy:
        raise InputError(f"{path} is no strategy; give one of hparams/, as s1.yaml, or a YAML that extends one")
    changes = dict(changes or {})
    corpus = str(corpus or changes.get("corpus") or strategy.get("corpus") or base["corpus"])
    settings = _read_file(_find_corpus(corpus, path.parent))
    layers = (base, settings, strategy)
    tree = {key: value for layer in layers for key, value in layer.items()} | {"corpus": corpus}
    for key in _without_use(layers, tree):
        del tree[key]
    _check_known(tree, changes, "command line")
    whole = {**tree, **changes}
    _check_switches({**base, **settings}, whole)
    return whole


def _check_switches(defaults: Mapping[str, Any], tree: Mapping[str, Any]) -> None:
    """Refuse words for keys that are true or false: YAML 1.2 reads no as text, which counts as true."""
    for key, default in defaults.items():
        if isinstance(default, bool) and key in tree and not isinstance(tree[key], bool):
            raise InputError(f"{key} is {tree[key]!r}; give true or false")


def _without_use(layers: Sequence[Tree], tree: Tree) -> set[str]:
    """Find keys that only the replaced objects of a layer below referred to: to give one would have no effect."""
    referred = {name for layer in layers for name in REFERENCE.findall(dump(layer))}
    return {key for key in tree if key in referred} - set(REFERENCE.findall(dump(tree))) - READ_BY_CODE


def _find_corpus(name: str, folder: Path) -> Path:
    places = [folder / "corpora", HPARAMS / "corpora"]
    for place in places:
        if (place / f"{name}.yaml").is_file():
            return place / f"{name}.yaml"
    known = ", ".join(sorted({file.stem for place in places for file in place.glob("*.yaml")}))
    raise InputError(f"unknown corpus {name!r}; the corpora are {known}")


def _read_file(path: Path) -> Tree:
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
    return dict(tree)


def _check_known(known: Mapping[str, Any], changes: Mapping[str, Any], origin: str) -> None:
    for key in changes:
        if key not in known:
            near = difflib.get_close_matches(str(key), list(known), 3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known keys: {', '.join(known)}"
            raise InputError(f"{origin}: unknown key {key!r}; {hint}")


def dump(tree: Mapping[str, Any]) -> str:
    """Write a tree as HyperPyYAML text."""
    text = StringIO()
    YAML().dump(deepcopy(dict(tree)), text)
    return text.getvalue()


def plain(value: Any) -> Any:
    """Return values of a tree without comments, so that equal settings compare equal; a tag becomes a pair.

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
    """Replace references by the values that they name; nothing is built."""
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


def check_classes(tree: Mapping[str, Any]) -> None:
    """Check that all classes and functions that a tree names exist; none is called.

    Raises
    ------
    InputError
        If a module cannot be imported, or lacks a name; the message says which.
    """
    for dotted in dict.fromkeys(NAMED.findall(dump(tree))):
        try:
            if locate(dotted) is not None:
                continue
        except ErrorDuringImport as error:
            raise InputError(f"cannot import {dotted}: {error}; correct its module") from error
        module, _, name = dotted.rpartition(".")
        try:
            there = dir(import_module(module))
        except ImportError as error:
            raise InputError(
                f"cannot import {module} ({error}); run in the folder of the module, or add the folder to PYTHONPATH"
            ) from error
        near = difflib.get_close_matches(name, there, n=1)
        raise InputError(f"{module} has no {name}{f', but {near[0]}' if near else ''}; correct the name")
