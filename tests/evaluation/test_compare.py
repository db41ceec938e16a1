"""Comparisons against SciPy, plain loops and arithmetic by hand."""

import numpy as np
import pytest
from scipy.stats import wilcoxon

from ser_plugins.errors import InputError
from ser_plugins.evaluation.compare import compare, holm, text
from ser_plugins.evaluation.system import System

LABELS = ["angry", "happy", "sad"]


@pytest.fixture
def systems(own, guess):
    found = []
    for name, skill in {"good": 2.0, "fair": 1.0, "poor": 0.0}.items():
        predicted = guess(skill, seed=len(found))[LABELS].idxmax(axis=1)
        found.append(System(name, own.table.assign(predicted=predicted), None))
    return found


def right(system):
    return (system.table["emotion"] == system.table["predicted"]).to_numpy()


def test_each_pair_is_compared(own, systems):
    found = compare(systems, own)
    assert [(pair["first"], pair["second"]) for pair in found["pairs"]] == [
        ("good", "fair"),
        ("good", "poor"),
        ("fair", "poor"),
    ]
    named = {system.name: right(system) for system in systems}
    for pair in found["pairs"]:
        one, two = named[pair["first"]], named[pair["second"]]
        assert pair["accuracy"]["value"] == pytest.approx(one.mean() - two.mean())
        counts = [pair[key] for key in ("only_first", "only_second", "both", "neither")]
        assert counts == [(one > two).sum(), (two > one).sum(), (one & two).sum(), (~one & ~two).sum()]
        actors = own.table["speaker"].unique()
        shares = [[x[own.table["speaker"] == actor].mean() for actor in actors] for x in (one, two)]
        assert pair["p"] == pytest.approx(wilcoxon(*shares).pvalue)
    assert [pair["p_holm"] for pair in found["pairs"]] == pytest.approx(holm([pair["p"] for pair in found["pairs"]]))


def test_differences_have_paired_intervals(own, systems):
    one, two = (right(system).astype(float) for system in systems[:2])
    parts = [np.flatnonzero(own.table["speaker"] == name) for name in own.table["speaker"].unique()]
    rng = np.random.default_rng(5)
    draws = [np.concatenate([parts[i] for i in rng.integers(9, size=9)]) for _ in range(4000)]
    found = compare(systems[:2], own)["pairs"][0]["accuracy"]
    expected = np.percentile([(one - two)[rows].mean() for rows in draws], [2.5, 97.5])
    assert [found["low"], found["high"]] == pytest.approx(expected, abs=0.01)


def test_systems_that_are_equal_do_not_differ(own, systems):
    twin = System("twin", systems[0].table, None)
    (pair,) = compare([systems[0], twin], own)["pairs"]
    assert pair["accuracy"] == {"value": 0, "low": 0, "high": 0}
    assert (pair["p"], pair["only_first"], pair["only_second"]) == (1.0, 0, 0)


def test_holms_correction_by_hand():
    """0.01 · 4, 0.02 · 3, then the largest so far: 0.03 · 2 = 0.06, and 0.04 · 1 is less."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


def test_the_text_has_a_line_a_system_and_a_line_a_pair(own, systems):
    lines = text(compare(systems, own)).splitlines()
    assert lines[0] == "own: 117 utterances of 9 actors"
    assert sum(line.split()[:1] == ["good"] for line in lines) == 3


def test_one_system_or_one_twice_is_refused(own, systems):
    for given in (systems[:1], [systems[0], systems[0], systems[1]]):
        with pytest.raises(InputError, match="give two or more different systems"):
            compare(given, own)
