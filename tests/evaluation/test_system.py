"""Predictions in all forms, and what is refused."""

import json
import re
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from ser_plugins.errors import InputError
from ser_plugins.evaluation.system import read_system
from ser_plugins.model_folder.lineage import Training, speaker_keys


def save(table, file):
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        table.to_parquet(file)
    elif file.suffix == ".jsonl":
        table.to_json(file, orient="records", lines=True)
    else:
        table.to_csv(file, index=False)
    return file


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_probabilities_are_read_in_the_order_of_the_corpus(tmp_path, own, guess, suffix):
    table = guess()
    file = save(table.sample(frac=1, random_state=1), tmp_path / f"p{suffix}")
    system = read_system([file], own)
    np.testing.assert_allclose(system.probabilities, table[["angry", "happy", "sad"]], rtol=1e-6)
    assert system.table["predicted"].tolist() == table[["angry", "happy", "sad"]].idxmax(axis=1).tolist()
    assert system.table["id"].tolist() == own.table["id"].tolist()


def test_logarithms_prefixes_and_paths_are_understood(tmp_path, own, guess):
    table = guess()
    values = table[["angry", "happy", "sad"]]
    plain = read_system([save(table, tmp_path / "plain.csv")], own)
    logs = np.log(values).assign(id=table["id"])
    prefixed = values.add_prefix("p_").assign(id=table["id"])
    # As ser-plugins predict writes it: emotion is what is predicted.
    paths = values.assign(path="clips/" + table["id"] + ".wav", emotion=values.idxmax(axis=1))
    for name, other in {"logs": logs, "prefixed": prefixed, "paths": paths}.items():
        system = read_system([save(other, tmp_path / f"{name}.csv")], own)
        np.testing.assert_allclose(system.probabilities, plain.probabilities, rtol=1e-6)
        assert system.table.equals(plain.table)


def test_a_given_prediction_goes_before_the_most_probable_one(tmp_path, own, guess):
    table = guess().assign(predicted="sad")
    system = read_system([save(table, tmp_path / "p.csv")], own)
    assert set(system.table["predicted"]) == {"sad"} and system.probabilities is not None
    system = read_system([save(table[["id", "predicted"]], tmp_path / "p.csv")], own)
    assert system.probabilities is None


def test_one_table_a_fold_or_their_folder(tmp_path, own, guess):
    table = guess()
    whole = read_system([save(table, tmp_path / "whole.csv")], own)
    parts = [
        save(table[own.table["block"] == fold], tmp_path / f"run/fold{fold}/predictions.csv") for fold in (1, 2, 3)
    ]
    for sources in (parts, [tmp_path / "run"]):
        found = read_system(sources, own)
        assert found.table.equals(whole.table) and (found.probabilities == whole.probabilities).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.iloc[2:], "2 of 117 utterances have no prediction: a0-0, a0-1; predict them"),
        (lambda t: pd.concat([t, t[:4]]), "4 ids stand twice: a0-0, a0-1, a0-2 and 1 more; keep one row of each"),
        (lambda t: t.replace({"id": {"a3-1": "b"}}), "1 ids are not in own: b; one looks like a0-0"),
        (
            lambda t: t.replace({"predicted": {"sad": "sadness"}}),
            "is predicted as 'sadness'; write one of angry, happy, sad",
        ),
        (lambda t: t.assign(predicted=None), "a0-0 is predicted as nothing"),
        (lambda t: t.drop(columns="id"), "lacks the column id; it has predicted"),
        (lambda t: t.drop(columns="predicted"), "has no column predicted, and not one for each of angry, happy, sad"),
        (lambda t: t.assign(sad=0.5), "has a probability of sad, but none of angry, happy; give all or none"),
        (
            lambda t: t.assign(sad=0.5, happy=0.4, angry=0.3),
            "the probabilities of a0-0, a0-1, a0-2 and 114 more are not",
        ),
        (lambda t: t.assign(sad="x", happy=0.5, angry=0.5), "the probabilities of a0-0"),
        (lambda t: t[:0], "has no rows"),
    ],
)
def test_unusable_predictions_are_refused_in_one_line(tmp_path, own, change, message):
    table = change(own.table[["id"]].assign(predicted=own.table["emotion"]))
    with pytest.raises(InputError, match=re.escape(message)) as error:
        read_system([save(table, tmp_path / "p.csv")], own)
    assert "\n" not in str(error.value) and "p.csv" in str(error.value)


def test_a_table_of_a_spreadsheet_is_read_or_refused_by_name(tmp_path, own):
    table = own.table[["id"]].assign(predicted=own.table["emotion"])
    file = save(table, tmp_path / "p.csv")
    text = file.read_text()
    file.write_text(text + ",\n,\n")
    assert len(read_system([file], own).table) == 117
    file.write_text(text + ",sad\n")
    with pytest.raises(InputError, match=r"row 118 after the header has no id"):
        read_system([file], own)
    file.write_text(text.replace(",", ";"))
    with pytest.raises(InputError, match=r"p\.csv is separated by semicolons; separate it by commas$"):
        read_system([file], own)
    file.write_text(text.replace("predicted", "Predicted"))
    with pytest.raises(InputError, match=r"no column predicted, .*; add either: it has id, Predicted$"):
        read_system([file], own)


def test_files_that_are_no_tables_are_refused(tmp_path, own):
    (tmp_path / "p.parquet").write_text("id")
    for name, message in {"no.csv": "there is no file", "p.txt": "is no .csv", "p.parquet": "cannot be read"}.items():
        with pytest.raises(InputError, match=message):
            read_system([tmp_path / name], own)
    with pytest.raises(InputError, match=r"has no predictions.csv and no fold1/predictions.csv"):
        read_system([tmp_path], own)


def test_a_model_of_another_fold_is_refused(tmp_path, own):
    table = own.table[["id", "block"]].assign(predicted=own.table["emotion"]).rename(columns={"block": "fold"})
    assert len(read_system([save(table, tmp_path / "p.csv")], own).table) == 117
    shifted = table.assign(fold=table["fold"] % 3 + 1)
    message = (
        "117 utterances are not of the block that their fold tests: a0-0, a0-1, a0-2 and 114 more; the model of fold 2"
    )
    with pytest.raises(InputError, match=message):
        read_system([save(shifted, tmp_path / "p.csv")], own)
    # The name of a file or folder says the fold as well.
    for name in ("fold2.csv", "fold_2.csv", "fold2/predictions.csv"):
        with pytest.raises(InputError, match=r"21 utterances are not of the block.*fold 1 tests"):
            read_system([save(table[table["fold"] != 3].drop(columns="fold"), tmp_path / name)], own)


@pytest.mark.parametrize("place", ["lineage.json", "model/lineage.json"])
def test_a_model_that_was_trained_on_a_speaker_is_refused(tmp_path, own, place):
    table = own.table[["id"]].assign(predicted="sad")
    file, record = save(table, tmp_path / "p.csv"), tmp_path / place
    record.parent.mkdir(exist_ok=True)

    def write(*speakers):
        one = Training("run", "S1", "table", 1, 1, "0" * 64, speakers=speaker_keys(speakers))
        record.write_text(json.dumps([asdict(one)]))

    write("table-other", "ravdess-a4")
    assert len(read_system([file], own).table) == 117
    write("table-other", "table-a4")
    with pytest.raises(
        InputError, match=r"13 utterances are predicted by a model that was trained on their speaker: a4-0"
    ):
        read_system([file], own)


def test_a_fold_is_a_number(own, tmp_path):
    table = own.table[["id"]].assign(predicted="sad", fold="f1")
    with pytest.raises(InputError, match=r"p\.csv: the fold of .* is no number; number folds from 1"):
        read_system([save(table, tmp_path / "p.csv")], own)
