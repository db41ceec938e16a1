"""The commands folds, evaluate and compare, as a user runs them."""

import hashlib
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from ser_plugins.commands import main
from ser_plugins.evaluation.protocol import protocol_folds, reference

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "results_records"
PAGE = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")


@pytest.fixture
def predictions(tmp_path, monkeypatch):
    """The folder of a table made by hand: everybody is neutral."""
    monkeypatch.chdir(tmp_path)
    ids = reference("ravdess").table["id"]
    Path("predictions.csv").write_text("id,predicted\n" + "".join(f"{one},neutral\n" for one in ids))
    return tmp_path


def test_folds_are_printed_or_written(tmp_path, capsys):
    main(["folds", "ravdess"])
    printed = capsys.readouterr()
    assert printed.out.encode() == protocol_folds("ravdess")
    main(["folds", "cremad", "--output", str(tmp_path / "new" / "folds.csv")])
    written = (tmp_path / "new" / "folds.csv").read_bytes()
    assert written == protocol_folds("cremad")
    assert capsys.readouterr().err == f"SHA-256 {hashlib.sha256(written).hexdigest()}\n"


def test_a_table_made_by_hand_is_evaluated(predictions, capsys):
    main(["evaluate", "predictions.csv", "--corpus", "ravdess", "--json", "out.json", "--html", "out.html"])
    printed = capsys.readouterr().out
    assert "predictions.csv on ravdess: 1440 utterances of 24 actors" in printed and "12.5 [12.5, 12.5]" in printed
    found = json.loads(Path("out.json").read_text())
    assert found["uar"] == {"value": 0.125, "low": 0.125, "high": 0.125} and found["accuracy"]["value"] == 96 / 1440
    assert Path("out.html").read_text().startswith("<!DOCTYPE html>")


def test_a_record_has_the_accuracy_that_it_recorded(tmp_path, capsys):
    record = RECORDS / "probe_campplus_ravdess"
    main(["evaluate", str(record), "--corpus", "ravdess", "--json", str(tmp_path / "out.json")])
    folds = [100 * one["accuracy"] for one in json.loads((tmp_path / "out.json").read_text())["folds"]]
    assert folds == pytest.approx(json.loads((record / "metrics.json").read_text())["test"], abs=1e-4)


def test_two_systems_are_compared(predictions, capsys):
    record = RECORDS / "probe_campplus_ravdess"
    main(["compare", "predictions.csv", str(record), "--corpus", "ravdess", "--json", "pairs.json"])
    (pair,) = json.loads(Path("pairs.json").read_text())["pairs"]
    table = pd.read_csv(record / "predictions.csv")
    right = table["emotion"] == table["predicted"]
    assert pair["only_second"] == (right & (table["emotion"] != "neutral")).sum()
    assert "utterances of 24 actors" in capsys.readouterr().out


def test_a_table_of_ones_own_is_the_reference(tmp_path, capsys):
    (tmp_path / "own.csv").write_text("id,emotion,speaker\n1,sad,x\n2,happy,x\n3,sad,y\n4,happy,y\n")
    (tmp_path / "p.jsonl").write_text(
        "".join(f'{{"id": "{i}", "sad": 0.{i}, "happy": 0.{10 - i}}}\n' for i in (1, 2, 3, 4))
    )
    main(["evaluate", str(tmp_path / "p.jsonl"), "--labels", str(tmp_path / "own.csv")])
    assert "4 utterances of 2 actors" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "no.csv", "--corpus", "ravdess"], "there is no file no.csv; check the name"),
        (["evaluate", "predictions.csv", "--corpus", "cremad"], "1440 ids are not in cremad: 03-01-01-01-01-01-01"),
        (["evaluate", "predictions.csv", "--labels", "no.csv"], "there is no file no.csv"),
        (["evaluate", "predictions.csv", "predictions.csv", "--corpus", "ravdess"], "predictions.csv is given twice"),
        (["compare", "predictions.csv", "--corpus", "ravdess"], "give two or more different systems"),
    ],
)
def test_wrong_use_is_one_line(predictions, words, message):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert str(end.value).startswith("error: ") and message in str(end.value) and "\n" not in str(end.value)


def test_a_system_that_leaks_is_refused(predictions):
    table = pd.read_csv(RECORDS / "probe_campplus_ravdess" / "predictions.csv")
    table.assign(fold=table["fold"] % 10 + 1).to_csv("leak.csv", index=False)
    with pytest.raises(
        SystemExit, match=r"error: leak.csv: 1440 utterances are not of the block that their fold tests"
    ):
        main(["evaluate", "leak.csv", "--corpus", "ravdess"])


def test_the_reference_is_needed(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "p.csv"])
    assert "one of the arguments --corpus --labels is required" in capsys.readouterr().err


def test_the_example_of_the_page_runs(predictions, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(code, {})
    assert "'value': 0.125" in capsys.readouterr().out


def test_options_of_the_page_exist(capsys):
    for command in ("evaluate", "compare"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
    known = capsys.readouterr().out
    assert [option for option in re.findall(r"--\w+", PAGE) if option not in known] == []
