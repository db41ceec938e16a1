"""The text and the page of an evaluation."""

import base64
import re
from xml.etree import ElementTree

import pytest

from ser_plugins.evaluation.evaluate import evaluate
from ser_plugins.evaluation.page import figures, html, measure, text
from ser_plugins.evaluation.system import System

LABELS = ["angry", "happy", "sad"]


@pytest.fixture
def result(own, guess):
    values = guess()[LABELS]
    return evaluate(System("<b>ours", own.table.assign(predicted=values.idxmax(axis=1)), values.to_numpy()), own)


def test_measures_are_percent_and_scores_are_not():
    found = {"value": 0.5, "low": 0.25, "high": 0.75}
    assert measure(found) == "50.0 [25.0, 75.0]" and measure(found, "brier") == "0.500 [0.250, 0.750]"
    assert measure({"value": 0.5, "low": None, "high": None}) == "50.0"
    assert measure({"value": None, "low": None, "high": None}) == "–"


def test_the_text_has_the_measures(result):
    found = text(result)
    assert found.startswith("<b>ours on own: 117 utterances of 9 actors")
    for name in ("accuracy", "uar", "macro_f1", "ece"):
        assert measure(result[name], name) in found
    assert re.search(r"By sex\n.*\n *male", found) and "By actor" not in found


def test_the_page_is_complete_in_itself(result):
    page = html(result)
    assert "<b>ours" not in page and "&lt;b&gt;ours" in page
    assert all(
        target.startswith("data:image/svg+xml;base64,") for target in re.findall(r'(?:src|href)="([^"]+)"', page)
    )
    assert measure(result["uar"]) in page and "By actor" in page
    images = [base64.b64decode(content) for content in re.findall(r'base64,([^"]+)"', page)]
    assert len(images) == 4
    for image in images:
        assert ElementTree.fromstring(image).tag.endswith("svg")


def test_figures_of_probabilities_need_probabilities(result):
    assert list(figures(result))[2:] == ["Reliability diagram", "Accuracy against coverage"]
    without = {key: value for key, value in result.items() if key not in {"reliability", "risk_coverage"}}
    assert list(figures(without)) == ["Confusion matrix", "Accuracy of each actor"]
    assert "Answering" not in text(without)
