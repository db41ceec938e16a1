"""A small table and predictions of it."""

import numpy as np
import pandas as pd
import pytest

from ser_plugins.evaluation.protocol import Reference

LABELS = ("angry", "happy", "sad")


@pytest.fixture
def own():
    """Nine actors of 5 to 21 utterances, in three blocks; sexes and sentences."""
    rng = np.random.default_rng(3)
    rows = []
    for actor in range(9):
        for clip in range(5 + 2 * actor):
            emotion = LABELS[rng.choice(3, p=[0.5, 0.3, 0.2])]
            sex = ("male", "female")[actor % 2]
            rows.append((f"a{actor}-{clip}", f"a{actor}", emotion, 1 + actor // 3, sex, f"s{clip % 2}"))
    table = pd.DataFrame(rows, columns=["id", "speaker", "emotion", "block", "sex", "sentence"])
    return Reference("own", LABELS, table)


@pytest.fixture
def guess(own):
    """Maker of probabilities that are better with more skill: a table with id and a column per emotion."""

    def make(skill=1.0, seed=0):
        rng = np.random.default_rng(seed)
        scores = rng.normal(size=(len(own.table), 3))
        scores[np.arange(len(scores)), [LABELS.index(one) for one in own.table["emotion"]]] += skill
        values = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        return pd.DataFrame(values, columns=LABELS).assign(id=own.table["id"])

    return make
