"""Public names of a package that are imported at their first use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any


def attach(package: str, places: Mapping[str, Iterable[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and ``__dir__`` of a package whose names are imported at their first use.

    A program imports only what it uses: ``ser-plugins --help`` imports no PyTorch.

    Parameters
    ----------
    package : str
        Name of the package.
    places : mapping
        Modules of the package, and the public names in each.

    Returns
    -------
    tuple of callable
        ``__getattr__`` and ``__dir__``, as PEP 562 defines them.

    Example
    -------
    >>> get, names = attach("ser_plugins", {"errors": ["InputError"]})
    >>> get("InputError").__module__, names()
    ('ser_plugins.errors', ['InputError'])
    """
    modules = {name: module for module, names in places.items() for name in names}

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{modules[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted(modules)
