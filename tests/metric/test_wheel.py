"""Polarities: the wheel, a table of one's own, and labels that neither knows."""

import pytest

from ser_plugins.errors import InputError
from ser_plugins.metric import WHEEL, polarity_ids

RAVDESS = ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]


def test_wheel_is_the_papers():
    groups = {polarity: {name for name, place in WHEEL.items() if place == polarity} for polarity in WHEEL.values()}
    assert groups == {
        "negative": {"sad", "fearful", "disgust", "angry"},
        "positive": {"surprised", "happy", "calm"},
        "neutral": {"neutral"},
    }


def test_ids_follow_the_order_of_the_labels():
    assert polarity_ids(RAVDESS).tolist() == [0, 1, 1, 2, 2, 2, 2, 1]
    assert polarity_ids([]).tolist() == []


def test_table_goes_before_the_wheel_and_may_use_any_names():
    table = {"surprised": "odd", "proud": "odd"}
    assert polarity_ids(["surprised", "happy", "proud"], table).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("labels", "table", "says"),
    [
        (["happy", "proud"], None, "'proud'.*polarity:"),
        (["happy"], {"hapy": "positive"}, "'hapy'.*labels: happy"),
    ],
)
def test_unknown_labels_are_named(labels, table, says):
    with pytest.raises(InputError, match=says):
        polarity_ids(labels, table)
