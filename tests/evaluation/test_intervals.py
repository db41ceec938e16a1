"""The bootstrap over actors against plain loops, on folds that differ in size and accuracy."""

import numpy as np
import pandas as pd
import pytest

from ser_plugins.evaluation.intervals import accuracy_interval, difference_interval

# Clips of each actor, and how many of them are right: folds of 3 and 5 actors, of 24 and 170 clips.
FOLDS = [
    {"ann": (4, 0), "ben": (8, 7), "cem": (12, 11)},
    {"dan": (10, 1), "eve": (40, 30), "fay": (60, 12), "gil": (20, 19), "hal": (40, 8)},
]


def frame(fold):
    rows = [
        (actor, "sad", "sad" if i < right else "calm") for actor, (clips, right) in fold.items() for i in range(clips)
    ]
    return pd.DataFrame(rows, columns=["speaker", "emotion", "predicted"])


def percentiles(draw, draws=4000):
    rng = np.random.default_rng(1)
    return np.percentile([draw(rng) for _ in range(draws)], [2.5, 97.5])


def actors_resampled(rng):
    """The mean over actors drawn with replacement; a clip has the weight 1 / size of its fold."""
    actors = [(right, clips, sum(c for c, _ in fold.values())) for fold in FOLDS for clips, right in fold.values()]
    right = weight = 0.0
    for _ in actors:
        hits, clips, size = actors[rng.integers(len(actors))]
        right, weight = right + hits / size, weight + clips / size
    return right / weight


def actors_without_weights(rng):
    actors = [(right, clips) for fold in FOLDS for clips, right in fold.values()]
    drawn = [actors[i] for i in rng.integers(len(actors), size=len(actors))]
    return sum(right for right, _ in drawn) / sum(clips for _, clips in drawn)


def clips_resampled(rng):
    folds = [[int(clip < right) for clips, right in fold.values() for clip in range(clips)] for fold in FOLDS]
    return np.mean([rng.choice(clips, len(clips)).mean() for clips in folds])


def test_the_interval_is_that_of_resampled_actors():
    found = accuracy_interval([frame(fold) for fold in FOLDS])
    assert found == pytest.approx(percentiles(actors_resampled), abs=0.02)
    # Other ways are far off, so that the test tells them apart.
    for wrong in (actors_without_weights, clips_resampled):
        assert np.abs(percentiles(wrong, 500) - found).max() > 0.035


def test_an_actor_who_is_always_wrong_widens_it_to_all_accuracies():
    one = frame({"ann": (16, 0), "ben": (16, 16), "cem": (16, 16)})
    assert accuracy_interval([one]) == pytest.approx((0, 1))


def test_systems_are_paired_by_actor():
    """The second system is right on all clips of five actors, and as the first on those of three."""
    first = [frame(fold).assign(id=lambda t: [f"{i}" for i in t.index]) for fold in FOLDS]
    second = [
        one.assign(predicted=one["predicted"].where(one["speaker"].isin(["ann", "eve", "hal"]), "sad")) for one in first
    ]

    def draw(rng):
        actors = []
        for fold in FOLDS:
            size = sum(clips for clips, _ in fold.values())
            for actor, (clips, right) in fold.items():
                other = right if actor in {"ann", "eve", "hal"} else clips
                actors.append(((right - other) / size, clips / size))
        drawn = [actors[i] for i in rng.integers(len(actors), size=len(actors))]
        return sum(value for value, _ in drawn) / sum(weight for _, weight in drawn)

    shuffled = [one.sample(frac=1, random_state=0) for one in second]
    assert difference_interval(first, shuffled) == pytest.approx(percentiles(draw), abs=0.02)
    assert difference_interval(second, first) == pytest.approx(-percentiles(draw)[::-1], abs=0.02)
    with pytest.raises(ValueError, match="different utterances"):
        difference_interval(first, [one.assign(id="x" + one["id"]) for one in second])


def test_a_single_actor_has_none():
    assert np.isnan(accuracy_interval([frame({"ann": (16, 8)})])).all()
