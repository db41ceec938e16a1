"""Measurements: not run here, but nothing that they take from the package may be gone."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("script", sorted(BENCHMARKS.rglob("*.py")), ids=lambda path: path.stem)
def test_all_that_a_measurement_imports_is_there(script, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = spec_from_file_location(f"measured_{script.stem}", script)
    spec.loader.exec_module(module_from_spec(spec))
