"""Imports run inwards: plugins, then training and use, then the paper and the command line. No folder is in a cycle."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ser_plugins"
PLUGINS = {"errors", "files", "lazy", "lengths", "distributed", "models", "metric", "audio", "registry"}
TRAINING_AND_USE = {
    *("memory", "configuration", "corpora", "model_folder", "evaluation", "training", "inference", "hub"),
}
PAPER = {"experiments", "commands", "__main__"}
RINGS = {name: ring for ring, names in enumerate((PLUGINS, TRAINING_AND_USE, PAPER), 1) for name in names}
# `ser_plugins.load` is the one public name of the second ring; it is imported at its first use.
PUBLIC = {("__init__", "model_folder")}
NOT_IN_PLUGINS = {"speechbrain", "pandas", "hyperpyyaml", "ruamel", "yaml"}
# What needs SpeechBrain is imported where it is used: an optional loss of its own.
LAZY = {("models/encoder.py", "speechbrain")}


def room(module: str) -> str:
    return module.split(".")[1]


def imports(file: Path) -> set[str]:
    """All modules that a file imports, at its top or within a function, but not for types alone."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: relative import"
            inside = node.module == "ser_plugins"
            found |= {f"ser_plugins.{alias.name}" for alias in node.names} if inside else {str(node.module)}
    return found


def edges() -> set[tuple[str, str]]:
    """Pairs of rooms (a folder or a single module) of which the first imports the second."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        own = file.relative_to(PACKAGE).with_suffix("").parts[0]
        rooms = {room(name) for name in imports(file) if name.startswith("ser_plugins.")}
        found |= {(own, other) for other in rooms if other in RINGS and other != own}
    return found


def test_every_room_has_a_ring():
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert rooms - {"__init__"} == set(RINGS)


def test_imports_run_inwards():
    outwards = {(a, b) for a, b in edges() - PUBLIC if RINGS.get(a, 1) < RINGS[b]}
    assert not outwards


def test_no_rooms_import_each_other_in_a_cycle():
    left = {(a, b) for a, b in edges() if a != "__init__"}
    while left:
        sources = {a for a, _ in left}
        inner = {(a, b) for a, b in left if b not in sources}  # what imports nothing else
        assert inner, f"cycle among {sorted(sources & {b for _, b in left})}"
        left -= inner


@pytest.mark.parametrize("name", sorted(PLUGINS))
def test_plugins_name_no_library_of_the_second_ring(name):
    path = PACKAGE / name
    files = [*path.rglob("*.py")] if path.is_dir() else [path.with_suffix(".py")]
    for file in files:
        found = {module.split(".")[0] for module in imports(file)} & NOT_IN_PLUGINS
        assert {(file.relative_to(PACKAGE).as_posix(), module) for module in found} <= LAZY
