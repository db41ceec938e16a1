"""The leaderboard is that of the committed records, and refuses what does not follow the protocol."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from sklearn.metrics import balanced_accuracy_score

from ser_plugins.errors import InputError
from ser_plugins.experiments.leaderboard import CARD, KEYS, leaderboard, read_card

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "results_records"
PAGE = ROOT / "docs" / "leaderboard.md"
NAME = "probe_campplus_ravdess"


@pytest.fixture
def records(tmp_path):
    shutil.copytree(RECORDS / NAME, tmp_path / NAME)
    return tmp_path


def rewrite(records, **keys):
    file = records / NAME / CARD
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **keys}))


def test_the_page_is_that_of_the_records():
    remedy = "run python recipes/experiments.py leaderboard"
    assert PAGE.read_text(encoding="utf-8") == leaderboard(RECORDS), remedy


def test_figures_are_those_of_the_predictions():
    rows = [line.split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.endswith("` |")]
    assert {re.sub(r"[`| ]", "", row[-1]) for row in rows} >= {
        file.parent.name for file in RECORDS.glob("*/predictions.*")
    }
    for row in rows:
        folder = RECORDS / re.sub(r"[`| ]", "", row[-1])
        table = pd.concat(map(pd.read_csv, folder.rglob("predictions.*")))
        expected = 100 * balanced_accuracy_score(table["emotion"], table["predicted"])
        assert float(row[1].split()[0]) == pytest.approx(expected, abs=0.051)


def test_recorded_experiments_are_listed_once_they_are_whole(records):
    """As `recipes/experiments.py record` keeps them."""
    table = pd.read_csv(records / NAME / "predictions.csv", dtype={"speaker": str})
    for fold, part in table.groupby("fold"):
        folder = records / f"S8/ravdess/1/fold{fold}"
        folder.mkdir(parents=True)
        part.drop(columns="fold").to_csv(folder / "predictions.csv.gz", index=False)
        source = f"S1/fold{fold}/model"
        known = {"strategy": "S8", "corpus": "ravdess", "seed": 1, "synthetic": False, "pretrained_encoder": source}
        metrics = {**known, "fold": fold, "speaker_normalization": "features+embeddings", "n_test": len(part)}
        (folder / "metrics.json").write_text(json.dumps(metrics))
    before, after = leaderboard(records).split("## RAVDESS, speaker-normalised")
    one, two = (re.findall(r"^\| .* `.*` \|$", part, re.MULTILINE)[0].split(" | ") for part in (before, after))
    assert two[0] == "| S8" and two[-2:] == ["S1/fold{fold}/model", "`S8/ravdess/1` |"]
    assert one[1:5] == two[1:5]
    shutil.rmtree(records / "S8/ravdess/1/fold10")
    assert "| S8" not in leaderboard(records)


def test_systems_are_in_the_order_of_their_uar(records):
    worse = pd.read_csv(records / NAME / "predictions.csv")[["id", "emotion", "fold"]]
    shutil.copytree(records / NAME, records / "a_worse")
    (records / "a_worse" / "predictions.csv").unlink()
    worse.assign(predicted="sad").drop(columns="emotion").to_csv(records / "a_worse" / "predictions.csv", index=False)
    names = re.findall(r"`(\w+)` \|$", leaderboard(records), re.MULTILINE)
    assert names == [NAME, "a_worse"]


def test_speaker_normalised_systems_are_apart(records):
    rewrite(records, speaker_normalised=True)
    before, after = leaderboard(records).split("## RAVDESS, speaker-normalised")
    assert NAME not in before and NAME in after


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"speaker_normalised": "maybe"}, "speaker_normalised is 'maybe'; give true or false"),
        ({"corpus": "iemocap"}, "corpus is 'iemocap'; give ravdess or cremad"),
        ({"corpus": "cremad"}, "1440 ids are not in cremad"),
        ({"accuracy": 99}, "there is no key accuracy"),
    ],
)
def test_a_wrong_card_is_refused(records, keys, message):
    rewrite(records, **keys)
    with pytest.raises(InputError, match=message):
        leaderboard(records)


def test_predictions_need_a_card_and_records_predictions(records, tmp_path):
    (records / NAME / CARD).write_text("[")
    with pytest.raises(InputError, match=r"card.yaml is no YAML"):
        leaderboard(records)
    (records / NAME / CARD).unlink()
    with pytest.raises(InputError, match=f"{NAME} has predictions and no card.yaml; write one"):
        leaderboard(records)
    with pytest.raises(InputError, match=r"has no folder with predictions.csv"):
        leaderboard(tmp_path / "none")


def test_the_card_of_the_page_is_complete(tmp_path):
    (block,) = re.findall(
        r"```yaml\n(.*?)```", (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8"), re.DOTALL
    )
    (tmp_path / CARD).write_text(block)
    assert set(read_card(tmp_path / CARD)) == set(KEYS)
