"""Folders that name no magnitude: those of today are logarithmic, those written before were linear."""

import pytest
from ruamel.yaml import YAML

from ser_plugins.model_folder.description import build, describe


@pytest.mark.parametrize("name", ["Spectrogram", "MelSpectrogram"])
def test_what_is_left_out_means_what_it_meant(name):
    described = describe(YAML().load(f"!new:ser_plugins.{name}"))
    assert described["arguments"] == {"log": True} and build(described).log
    assert not build({"class": f"ser_plugins.{name}", "arguments": {}}).log
    given = describe(YAML().load(f"!new:ser_plugins.{name} {{log: False}}"))
    assert given["arguments"] == {"log": False} and not build(given).log
