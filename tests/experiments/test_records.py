"""Records of published runs, and the pages that are written from them."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ser_plugins.commands import main
from ser_plugins.errors import InputError
from ser_plugins.evaluation.results import read_runs
from ser_plugins.experiments import summary
from ser_plugins.experiments.leaderboard import own_cards
from ser_plugins.experiments.records import record
from ser_plugins.experiments.runs import read_experiments
from ser_plugins.experiments.summary import (
    PLACES,
    about,
    control_table,
    fold_table,
    measured,
    paper_table,
    readme_table,
    results_page,
    write_results,
)

ROOT = Path(__file__).parents[2]
LABELS = ["neutral", "happy", "sad"]


def write_folds(root, strategy, folds):
    """Write folds of four utterances, so many of which are right."""
    rng = np.random.default_rng(0)
    for fold, right in folds:
        folder = root / f"{strategy}/ravdess/1/fold{fold}"
        folder.mkdir(parents=True)
        scores = np.log(rng.dirichlet(np.ones(3), 4))
        table = pd.DataFrame({"id": [f"{fold}-{i}" for i in range(4)], "speaker": [f"{fold}a", f"{fold}b"] * 2})
        table["emotion"] = "sad"
        table["predicted"] = ["sad"] * right + ["happy"] * (4 - right)
        pd.concat([table, pd.DataFrame(scores, columns=LABELS)], axis=1).to_csv(folder / "predictions.csv", index=False)
        metrics = {
            **{
                "labels": LABELS,
                "strategy": strategy,
                "corpus": "ravdess",
                "seed": 1,
                "fold": fold,
                "synthetic": False,
                "n_test": 4,
            },
            **{"accuracy": right / 4, "uar": right / 4, "macro_f1": 0.5, "pretrained_encoder": "none"},
            **{"speaker_normalization": "none", "confusion": [[0]], "commit": "abc", "seconds": 60.0},
            "command": f"python recipes/train.py hparams/s1.yaml --cache_folder /my/own --corpus ravdess --fold {fold}",
        }
        (folder / "metrics.json").write_text(json.dumps(metrics))


@pytest.fixture
def results(tmp_path):
    """Two folds of S1 on RAVDESS, of which 3 of 4 and 2 of 4 utterances are right."""
    write_folds(tmp_path / "results", "S1", ((1, 3), (2, 2)))
    return tmp_path / "results"


def test_a_record_holds_what_the_folds_do(results, tmp_path):
    folder = record(results / "S1/ravdess/1", tmp_path / "records")
    assert folder == tmp_path / "records/S1/ravdess/1"
    for run, kept in zip(read_runs(results / "S1/ravdess/1"), read_runs(folder), strict=True):
        pd.testing.assert_frame_equal(run.scores(), kept.scores(), atol=6e-4)
        command = f"python recipes/train.py hparams/s1.yaml --corpus ravdess --fold {run.fold}"
        assert {**run.metrics, "command": command} == {**kept.metrics, "confusion": [[0]]}
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    record(results / "S1/ravdess/1", tmp_path / "records")
    assert before == {file: file.read_bytes() for file in before}


def test_nothing_synthetic_is_recorded(results, tmp_path):
    for file in results.rglob("metrics.json"):
        file.write_text(file.read_text().replace('"synthetic": false', '"synthetic": true'))
    with pytest.raises(InputError, match="no figure is published"):
        record(results / "S1/ravdess/1", tmp_path / "records")
    with pytest.raises(InputError, match="no finished fold"):
        record(results / "S2/ravdess/1", tmp_path / "records")


def test_the_page_has_the_means_of_the_folds(results):
    page = results_page(read_experiments(results), measured(read_experiments(results), results), results)
    [row] = [line for line in page.splitlines() if line.startswith("| S1 |")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert re.fullmatch(r"62\.5 \[[\d.]+, [\d.]+\] \(2 folds\)", cells[1])
    assert cells[2:5] == [f"{np.std([75, 50], ddof=1):.1f}", "62.5", "67.9"]  # the last is of the paper's Table 2
    assert cells[5:] == ["–"] * 4  # of CREMA-D there is nothing
    assert fold_table(read_experiments(results)).loc[("ravdess", "S1", 1)].tolist() == [75.0, 50.0]
    assert "--cache_folder /my/own --corpus CORPUS --fold all` | S1 |" in page
    assert "S1 (2 of 10 folds), S2, S3" in page and "- CREMA-D: S1, S2" in page


def test_the_page_has_differences_and_ensembles_on_shared_folds(results, monkeypatch):
    write_folds(results, "S2", ((1, 4), (2, 4), (3, 0)))
    monkeypatch.setattr(summary, "ENSEMBLES", [("S1", "S2"), ("S1", "S9")])
    page = results_page(read_experiments(results), measured(read_experiments(results), results), results)
    [row] = [line for line in page.splitlines() if "S2 − S1" in line]
    assert row.startswith("| RAVDESS | S2 − S1 | 2 | 37.5 | [12.5, 50.0] |")  # three of four actors gain half
    # Both have the same probabilities, so the mean is theirs: the largest is the ensemble's answer.
    runs = read_runs(results / "S1/ravdess/1")
    right = [(run.scores()[LABELS].to_numpy().argmax(1) == LABELS.index("sad")).mean() for run in runs]
    [row] = [line for line in page.splitlines() if "S1 + S2" in line]
    assert row.startswith(f"| RAVDESS | S1 + S2 | 2 | {100 * np.mean(right):.1f} |") and "S1 + S9" not in page


def test_a_division_by_utterance_stands_apart(results, tmp_path):
    write_folds(results, "S1-utterance", [(fold, 4) for fold in range(1, 11)])
    for file in results.glob("S1-utterance/**/metrics.json"):
        file.write_text(file.read_text().replace('"seed": 1', '"seed": 1, "split": "utterance"'))
    frame = measured(read_experiments(results), results)
    page = results_page(read_experiments(results), frame, results)
    above, below = page.split("## Divided by utterance")
    assert "| S1-utterance |" not in above and "| S1-utterance |" in below and "A control, not a result" in below
    assert "utterance" not in readme_table(frame)
    assert not own_cards(read_experiments(results))


def test_the_control_stands_next_to_the_division_by_speaker(results):
    write_folds(results, "S3", [(fold, 3) for fold in range(1, 11)])
    write_folds(results, "S3-utterance", [(fold, 4) for fold in range(1, 11)])
    for file in results.glob("S3-utterance/**/metrics.json"):
        file.write_text(file.read_text().replace('"seed": 1', '"seed": 1, "split": "utterance"'))
    rows = control_table(measured(read_experiments(results), results)).splitlines()
    assert [row for row in rows if "RAVDESS" in row] == ["| RAVDESS | S3 | 75.0 | 100.0 | 25.0 |"]


def test_the_readme_lists_whole_rows_only(results, tmp_path):
    assert "S1" not in readme_table(measured(read_experiments(results), results))
    files = [tmp_path / name for name in ("RESULTS.md", "README.md", "paper.md")]
    places = [("results", "system"), ("results", "corpus"), ("control", "corpus")]
    marks = [tuple(place.format(name) for place in PLACES) for name, _ in places]
    blocks = [f"before\n{begin}\nold\n{end}\nafter\n" for begin, end in marks]
    for file, block in zip(files[1:], (blocks[0], blocks[1] + blocks[2]), strict=True):
        file.write_text(block)
    write_results(results, *files)
    parts = [part.removeprefix("before\n") for file in files[1:] for part in file.read_text().split("after\n")[:-1]]
    for part, (begin, end), (_, column) in zip(parts, marks, places, strict=True):
        assert part.startswith(f"{begin}\n| {column} |") and part.endswith(f"{end}\n") and "old" not in part
    files[2].write_text("no place")
    with pytest.raises(InputError, match=re.escape(marks[0][0])):
        write_results(results, *files)


def test_the_papers_table_has_strategies_of_ten_folds_and_their_distance(results):
    for strategy in ("S3", "S9"):
        write_folds(results, strategy, [(fold, 3) for fold in range(1, 11)])
    table = paper_table(measured(read_experiments(results), results))
    [row] = [line for line in table.splitlines() if line.startswith("| RAVDESS")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:2] == ["RAVDESS", "S3"] and cells[2].startswith("75.0 [")
    assert cells[3:] == ["79.8", "-4.8"]  # 75 - 79.78


@pytest.mark.parametrize("strategy", ["S1", "S5", "S6", "S9-normalised", "Probe", "Bhavan"])
def test_each_strategy_has_a_description(strategy):
    assert re.fullmatch(rf"{strategy}: [a-z\d].+", about(strategy))


def test_the_published_pages_are_those_of_the_records():
    """If it fails: python recipes/experiments.py results."""
    experiments = read_experiments(ROOT / "results_records")
    frame = measured(experiments, ROOT / "results_records")
    assert (ROOT / "RESULTS.md").read_text(encoding="utf-8") == results_page(
        experiments, frame, ROOT / "results_records"
    )
    for name, place, expected in (
        ("README.md", "results", readme_table(frame)),
        ("docs/paper.md", "results", paper_table(frame)),
        ("docs/paper.md", "control", control_table(frame)),
    ):
        begin, end = (mark.format(place) for mark in PLACES)
        found = (ROOT / name).read_text(encoding="utf-8").split(begin)[1].split(end)[0]
        assert found.strip() == expected.strip()
    kept = pd.read_csv(ROOT / "results_records/folds.csv", index_col=[0, 1, 2])
    expected = fold_table(experiments)
    expected.columns = expected.columns.astype(str)
    pd.testing.assert_frame_equal(kept, expected, atol=0.0051)


def test_the_tables_of_the_ablations_are_means_of_their_record():
    table = pd.read_csv(ROOT / "results_records/ablations.csv").replace({"corpus": summary.CORPORA})
    page = (ROOT / "docs/ablations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+) \| (RAVDESS|CREMA-D) \| (\d+) \| ([\d.]+) \|$", page, re.MULTILINE)
    groups = {name: part["valid_accuracy"] for name, part in table.groupby(["system", "corpus"])}
    for system, corpus, *_ in rows:
        if (system, corpus) not in groups:  # a published system: its own record has the figure
            runs = read_runs(ROOT / f"results_records/{system}/{corpus.lower().replace('-', '')}/1")
            groups[system, corpus] = pd.Series([100 * run.metrics["classifier_valid_accuracy"] for run in runs])
    assert {(system, corpus) for system, corpus, _, _ in rows} == set(groups) and len(rows) == len(groups)
    for system, corpus, folds, mean in rows:
        assert int(folds) == len(groups[system, corpus])
        assert float(mean) == pytest.approx(groups[system, corpus].mean(), abs=0.0501)


def test_the_controls_of_the_ablations_are_those_of_their_predictions(tmp_path):
    page = (ROOT / "docs/ablations.md").read_text(encoding="utf-8").split("## One choice at a time")[1].split("## ")[0]
    rows = re.findall(r"^\| .+ \| `([\w/.]+)` \| ([\d.]+) \| (.+) \|$", page, re.MULTILINE)
    names = [str(ROOT / "results_records" / name) for name, *_ in rows]
    main(["compare", *names, "--corpus", "ravdess", "--json", str(tmp_path / "pairs.json")])
    result = json.loads((tmp_path / "pairs.json").read_text())
    assert len(rows) >= 3 and [row[1] for row in rows] == [f"{100 * one['accuracy']:.1f}" for one in result["systems"]]
    differences = [pair["accuracy"] for pair in result["pairs"][: len(rows) - 1]]  # the first minus each other
    for (*_, said), found in zip(rows[1:], differences, strict=True):
        value, high, low = (-100 * found[key] for key in ("value", "low", "high"))
        assert said == f"{value:.1f} [{low:.1f}, {high:.1f}]"
