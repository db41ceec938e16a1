"""Equal error rate and margin against other implementations; which shards are taken."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from speechbrain.utils.metric_stats import EER

from ser_plugins import MarginClassifier, SpeechNormalizer
from ser_plugins.corpora.shards import ShardFolder
from ser_plugins.errors import InputError
from ser_plugins.evaluation.measures import equal_error_rate
from ser_plugins.training.speakers import UTTERANCES, check_shards, check_utterances


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**31), same=st.integers(1, 80), other=st.integers(1, 80), shift=st.floats(-1, 3))
def test_equal_error_rate_is_that_of_speechbrain(seed, same, other, shift):
    rng = np.random.default_rng(seed)
    positive, negative = rng.normal(shift, 1, same), rng.normal(0, 1, other)
    expected, _ = EER(torch.tensor(positive), torch.tensor(negative))
    found = equal_error_rate([1] * same + [0] * other, [*positive, *negative])
    # Both take the nearest threshold; between two of them the curves move by one pair.
    assert found == pytest.approx(float(expected), abs=1 / min(same, other))


def test_equal_error_rate_of_the_best_and_the_worst():
    assert equal_error_rate([1, 1, 0, 0], [4, 3, 2, 1]) == 0
    assert equal_error_rate([0, 0, 1, 1], [4, 3, 2, 1]) == 1


@pytest.mark.parametrize("margin", [0.0, 0.2, 0.5])
def test_margin_is_added_to_the_angle_of_the_right_class(margin):
    torch.manual_seed(0)
    classifier = MarginClassifier(8, 5, margin, scale=20)
    embeddings, labels = torch.randn(6, 1, 8), torch.tensor([0, 1, 2, 3, 4, 0])
    found = classifier(embeddings, labels)
    plain = classifier(embeddings)
    assert found.shape == plain.shape == (6, 1, 5)
    for row, (embedding, label) in enumerate(zip(embeddings.squeeze(1), labels, strict=True)):
        cosines = [float(embedding @ w / embedding.norm() / w.norm()) for w in classifier.weight]
        angles = [math.acos(c) for c in cosines]
        moved = [math.cos(a + margin) if k == label else math.cos(a) for k, a in enumerate(angles)]
        for values, got in ((moved, found), (cosines, plain)):
            total = sum(math.exp(20 * value) for value in values)
            expected = [20 * value - math.log(total) for value in values]
            assert got[row, 0].tolist() == pytest.approx(expected, abs=1e-4)


def test_margin_classifier_is_float32_under_autocast():
    classifier = MarginClassifier(8, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert classifier(torch.randn(2, 1, 8).bfloat16()).dtype == torch.float32


def test_shards_of_another_release_of_the_detector_are_taken_and_of_another_one_are_not():
    """Where only the shards are, the detector need not be installed."""
    made = {"silero": "silero-vad 0.1", "webrtc": "webrtcvad-wheels 0.1", "none": "none"}
    for name, package in made.items():
        shards = ShardFolder(Path("shards"), {"settings": {"vad": package}})
        check_shards(shards, SpeechNormalizer(vad=name))
        for other in set(made) - {name}:
            with pytest.raises(InputError, match="made with another vad; give the corpus' folder"):
                check_shards(shards, SpeechNormalizer(vad=other))


def test_a_run_that_has_begun_takes_no_other_utterances(tmp_path):
    first, other = (ShardFolder(tmp_path, {"settings": {"sha256": name}}) for name in ("a" * 64, "b" * 64))
    check_utterances(other, tmp_path)
    check_utterances(first, tmp_path)  # nothing is trained yet
    (tmp_path / "save" / "CKPT+1").mkdir(parents=True)
    check_utterances(first, tmp_path)
    with pytest.raises(InputError, match="holds a run of other utterances; delete it, or give another --output_folder"):
        check_utterances(other, tmp_path)
    assert (tmp_path / UTTERANCES).read_text() == "a" * 64 + "\n"
