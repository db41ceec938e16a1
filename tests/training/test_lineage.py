"""Lineage: which trainings led to a model, and whom they heard."""

import json

import pandas as pd
import pytest

from ser_plugins.errors import InputError
from ser_plugins.training.lineage import (
    LINEAGE,
    Training,
    check_unheard,
    file_sha256,
    read_lineage,
    speaker_keys,
    write_lineage,
)


def training(weights, corpus="one", fold=2, speakers=("one-s1", "one-s4"), **facts):
    return Training(
        *("0" * 32, "S3", corpus, fold, 1), sha256=file_sha256(weights), speakers=speaker_keys(speakers), **facts
    )


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "embedding_model.ckpt"
    path.write_bytes(b"weights")
    return path


def test_a_lineage_is_read_as_it_was_written(weights):
    assert read_lineage(weights) == ()
    lineage = (training(weights, "voices", None), training(weights, start="results/voices/1/encoder"))
    write_lineage(weights.parent, lineage)
    assert read_lineage(weights) == lineage
    assert "s1" not in (weights.parent / LINEAGE).read_text()  # no names of speakers


def test_a_lineage_of_other_weights_is_refused(weights):
    write_lineage(weights.parent, [training(weights)])
    weights.write_bytes(b"others")
    with pytest.raises(InputError, match=r"lineage.json records other weights than embedding_model.ckpt"):
        read_lineage(weights)


@pytest.mark.parametrize("text", ["", "[1]", '[{"run_id": 1}]', "{"])
def test_a_damaged_lineage_is_one_line(weights, text):
    (weights.parent / LINEAGE).write_text(text)
    with pytest.raises(InputError, match=r"lineage.json is no lineage; export"):
        read_lineage(weights)


def test_a_lineage_elsewhere_does_not_count(weights, tmp_path):
    """Folders above, or of the name that the initial weights had, are not searched."""
    write_lineage(tmp_path, [training(weights)])
    model = tmp_path / "run" / "model"
    model.mkdir(parents=True)
    (model / "embedding_model.ckpt").write_bytes(b"weights")
    assert read_lineage(model / "embedding_model.ckpt") == ()


@pytest.mark.parametrize(
    ("held_out", "says"),
    [
        ({"a": "one-s2", "b": "two-s1"}, None),
        (
            {"a": "one-s2", "b": "one-s4"},
            r"heard/model was trained on speakers of 1 utterances .* as b \(S3 on one, fold 2",
        ),
        ({"a": "voices-s9", "b": "one-s2"}, r"1 utterances .* as a \(S3 on voices\); give that of the same fold"),
    ],
)
def test_an_encoder_that_heard_a_held_out_speaker_is_refused(weights, held_out, says):
    lineage = [training(weights, "voices", None, ("voices-s9",)), training(weights)]
    table = pd.DataFrame({"id": list(held_out), "speaker": list(held_out.values())})
    if says is None:
        check_unheard(lineage, table, "heard/model")
    else:
        with pytest.raises(InputError, match=says):
            check_unheard(lineage, table, "heard/model")


def test_keys_are_those_of_sha256():
    import hashlib

    assert speaker_keys(["a-1", "a-1", "b"]) == tuple(hashlib.sha256(n.encode()).hexdigest()[:12] for n in ("a-1", "b"))
    assert json.dumps(speaker_keys(["a"])) == '["ca978112ca1b"]'
