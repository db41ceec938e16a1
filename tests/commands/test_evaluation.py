"""The commands folds, evaluate and compare, as a user runs them."""

import hashlib
import json
import re
from pathlib import Path

import pandas as pd
import pytest
import soundfile

from ser_plugins.commands import main
from ser_plugins.corpora.synthetic import speak
from ser_plugins.evaluation.protocol import protocol_folds, reference
from ser_plugins.hub.card import model_card
from ser_plugins.model_folder.lineage import Training, file_sha256, speaker_keys, write_lineage

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
        (["evaluate", "--corpus", "ravdess"], "give either PREDICTIONS or --model"),
        (["evaluate", "predictions.csv", "--corpus", "ravdess", "--model", "m"], "give either PREDICTIONS or --model"),
        (["evaluate", "--corpus", "ravdess", "--model", "m"], "--model needs --corpus and --data_folder"),
        (["evaluate", "--labels", "own.csv", "--model", "m", "--data_folder", "."], "--model needs --corpus"),
        (["evaluate", "predictions.csv", "--corpus", "ravdess", "--stress"], "--stress and --data_folder go with"),
        (["evaluate", "predictions.csv", "--corpus", "table"], "for predictions give --labels TABLE"),
        (["evaluate", "--model", "m", "--corpus", "ravdess", "--data_folder", "no"], "there is no folder no"),
    ],
)
def test_wrong_use_is_one_line(predictions, words, message):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert str(end.value).startswith("error: ") and message in str(end.value) and "\n" not in str(end.value)


def test_a_model_predicts_a_table_itself_under_stress(tmp_path, write_model, capsys):
    rows = ["path,emotion,speaker,sex"]
    for speaker in (1, 2, 3, 4, 5):
        for emotion in ("happy", "sad"):
            soundfile.write(tmp_path / f"{speaker}{emotion}.wav", speak(0, speaker, emotion, 1), 16000)
            rows.append(f"{speaker}{emotion}.wav,{emotion},s{speaker},{('female', 'male')[speaker % 2]}")
    (tmp_path / "own.csv").write_text("\n".join(rows) + "\n")
    model = write_model(tmp_path / "model", "s1")
    facts = {"run_id": "r", "strategy": "S1", "corpus": "table", "fold": None, "seed": 1}
    weights = file_sha256(model / "embedding_model.ckpt")
    speakers, validated = speaker_keys(["table-s1"]), speaker_keys(["table-s2"])
    write_lineage(model, [Training(**facts, sha256=weights, speakers=speakers, valid_speakers=validated)])
    words = ["evaluate", "--model", str(model), "--corpus", "table", "--data_folder", str(tmp_path / "own.csv")]
    main([*words, "--stress", "--json", str(model / "stress.json"), "--html", str(tmp_path / "page.html")])
    head, left_out, *_ = (printed := capsys.readouterr().out).splitlines()
    assert head == f"{model} on table: 6 utterances of 3 actors"
    assert left_out == "4 utterances of 2 speaker(s) that were trained or validated on are left out."
    found = json.loads((model / "stress.json").read_text())
    names = [row["distortion"] for row in found["stress"]]
    assert names[0] == "as recorded" and len(set(names)) == 17 and all(name in printed for name in names)
    assert found["accuracy"] == found["stress"][0]["accuracy"] and "difference" in found["stress"][1]
    assert "UAR of distorted recordings" in (tmp_path / "page.html").read_text()
    card = model_card(model, "user/name", 12)
    rows = [line for line in card.splitlines() if line.startswith(("| telephone", "| −20 dB"))]
    assert len(rows) == 2 and "On 6 utterances of 3 speakers of table, in percent" in card


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
    for command in ("folds", "evaluate", "compare"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
    known = capsys.readouterr().out
    assert [option for option in re.findall(r"--\w+", PAGE) if option not in known] == []
