"""Polarities and coordinates: those that come along, a table of one's own, and labels that neither knows."""

import pytest
import torch

from ser_plugins.errors import InputError
from ser_plugins.metric import COORDINATES, WHEEL, emotion_distances, polarity_ids

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
    assert polarity_ids(["0", "1", "happy"], {0: "odd", 1: "positive"}).tolist() == [0, 1, 1]  # as YAML has them


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


def test_coordinates_lie_on_the_side_of_their_polarity():
    assert COORDINATES.keys() == WHEEL.keys()
    signs = {
        label: "neutral" if valence == 0 else "positive" if valence > 0 else "negative"
        for label, (valence, _) in COORDINATES.items()
    }
    assert signs == WHEEL


def test_distances_are_parts_of_the_largest():
    """From (0, 0) to (3, 4) it is 5, to (-3, 0) 3, and √52 between these two."""
    places = {"happy": (3, 4), "sad": (-3, 0)}
    found = emotion_distances(["neutral", "happy", "sad"], places)
    expected = torch.tensor([[0, 5, 3], [5, 0, 52**0.5], [3, 52**0.5, 0]], dtype=torch.float64) / 52**0.5
    torch.testing.assert_close(found, expected)


def test_distances_of_ravdess():
    """Calm (0.68, -0.46) and fearful (-0.64, 0.60) are farthest apart: √(1.32² + 1.06²) = √2.866."""
    found = emotion_distances(RAVDESS)
    assert found[1, 5] == found.max() == 1
    assert found[4, 5].item() == pytest.approx((0.13**2 + 0.01**2) ** 0.5 / 2.866**0.5)  # angry and fearful
    assert torch.equal(found, found.T)


@pytest.mark.parametrize("labels", [[], ["happy"], ["happy", "glad"]])
def test_labels_at_one_place_are_not_apart(labels):
    places = {"glad": COORDINATES["happy"]} if "glad" in labels else None
    assert torch.equal(emotion_distances(labels, places), torch.zeros(len(labels), len(labels), dtype=torch.float64))


@pytest.mark.parametrize(
    ("labels", "table", "says"),
    [
        (["happy", "proud"], None, r"'proud' has no coordinates; give it, as `coordinates: \{proud: \["),
        (["happy"], {"hapy": (1, 0)}, "'hapy'.*labels: happy"),
        (["happy"], {"happy": (1, 0, 0)}, "'happy' has .*two numbers"),
        (["happy"], {"happy": (1, float("nan"))}, "'happy' has .*two numbers"),
    ],
)
def test_labels_without_coordinates_are_named(labels, table, says):
    with pytest.raises(InputError, match=says):
        emotion_distances(labels, table)
