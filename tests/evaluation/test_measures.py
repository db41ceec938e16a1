"""Measures against arithmetic by hand."""

import numpy as np
import pandas as pd
import pytest

from ser_plugins.evaluation.measures import measure

pytestmark = pytest.mark.filterwarnings("ignore:y_pred contains classes")
CLASSES = ["neutral", "happy", "sad", "angry"]
TRUE = ["happy", "happy", "happy", "sad", "sad", "neutral"]
PREDICTED = ["happy", "happy", "sad", "sad", "angry", "happy"]


def frame(true, predicted):
    return pd.DataFrame({"emotion": true, "predicted": predicted})


def test_measures_of_a_small_table():
    """No angry utterance: recalls are 2/3, 1/2 and 0; precisions 2/3, 1/2 and 0."""
    found = measure(frame(TRUE, PREDICTED), CLASSES)
    assert found["accuracy"] == pytest.approx(3 / 6)
    assert found["uar"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert found["confusion"] == [[0, 1, 0, 0], [0, 2, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]]


def test_measures_of_unequal_classes():
    """Precisions 3/4 and 1/2, recalls 3/4 and 1/2 of four happy and two sad: accuracy is not the mean recall."""
    found = measure(frame(["happy"] * 4 + ["sad"] * 2, ["happy"] * 3 + ["sad"] + ["happy", "sad"]), CLASSES)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["uar"] == found["macro_f1"] == pytest.approx((3 / 4 + 1 / 2) / 2)


@pytest.mark.parametrize(("predicted", "value"), [(TRUE, 1.0), (["angry"] * 6, 0.0)])
def test_all_right_and_all_wrong(predicted, value):
    found = measure(frame(TRUE, predicted), CLASSES)
    assert (found["accuracy"], found["uar"], found["macro_f1"]) == (value, value, value)
    assert np.trace(found["confusion"]) == 6 * value and np.sum(found["confusion"]) == 6
