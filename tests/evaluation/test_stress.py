"""What distortions change, against plain loops over utterances and actors."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score

from ser_plugins.evaluation.evaluate import evaluate
from ser_plugins.evaluation.intervals import actor_draws
from ser_plugins.evaluation.page import html, tables, text
from ser_plugins.evaluation.stress import measure_stress
from ser_plugins.evaluation.system import System


@pytest.fixture
def systems(own, guess):
    def system(name, skill, seed):
        predicted = guess(skill, seed)[list(own.labels)].idxmax(axis=1)
        return System(name, own.table.assign(predicted=predicted), None)

    return {"as recorded": system("a", 2.0, 0), "noise": system("a", 1.0, 1)}


def test_it_measures_what_loops_do(own, systems):
    first, second = measure_stress(systems, own)
    assert first["changed"] == {"value": 0.0, "low": 0.0, "high": 0.0} and first["distortion"] == "as recorded"
    before, after = (one.table for one in systems.values())
    changed = [a != b for a, b in zip(before["predicted"], after["predicted"], strict=True)]
    assert second["changed"]["value"] == pytest.approx(sum(changed) / len(changed))
    assert second["accuracy"]["value"] == pytest.approx((after["predicted"] == after["emotion"]).mean())

    def difference(table):
        women, men = (table[table["sex"] == sex] for sex in ("female", "male"))
        return balanced_accuracy_score(women["emotion"], women["predicted"]) - balanced_accuracy_score(
            men["emotion"], men["predicted"]
        )

    assert second["difference"]["value"] == pytest.approx(difference(after))
    speakers = list(dict.fromkeys(after["speaker"]))
    groups = dict(iter(after.groupby("speaker")))
    drawn, shares = [], []
    for times in actor_draws(len(speakers))[:400].astype(int):
        table = pd.concat([groups[one] for one, n in zip(speakers, times, strict=True) for _ in range(n)])
        drawn.append(difference(table) if table["sex"].nunique() == 2 else np.nan)
        shares.append(np.mean([changed[i] for i in after.reset_index().set_index("id").loc[table["id"], "index"]]))
    for key, values in {"difference": drawn, "changed": shares}.items():
        low, high = np.nanpercentile(values, [2.5, 97.5])
        assert second[key]["low"] == pytest.approx(low, abs=0.05)
        assert second[key]["high"] == pytest.approx(high, abs=0.05)


def test_without_sexes_there_is_no_difference(own, systems):
    bare = {name: System("a", one.table.drop(columns="sex"), None) for name, one in systems.items()}
    assert all("difference" not in row for row in measure_stress(bare, own))
    one_woman = own.table["speaker"].map(lambda name: "female" if name == "a3" else "male")
    few = {name: System("a", one.table.assign(sex=one_woman), None) for name, one in systems.items()}
    assert all(row["difference"]["low"] is None and row["uar"]["low"] for row in measure_stress(few, own))
    alone = {name: System("a", one.table.assign(sex="male"), None) for name, one in systems.items()}
    assert all("difference" not in row for row in measure_stress(alone, own))


def test_text_page_and_json_have_the_table(own, systems):
    result = evaluate(systems["as recorded"], own)
    result |= {"notes": ["9 <b> left out."], "stress": measure_stress(systems, own)}
    table = tables(result)["Distortions"]
    assert table["distortion"].tolist() == ["as recorded", "noise"]
    shown = 100 * result["stress"][1]["changed"]["value"]
    assert table["changed answers"][1].startswith(f"{shown:.1f} [")
    assert text(result).splitlines()[1] == "9 <b> left out." and "UAR, women − men" in text(result)
    page = html(result)
    assert "9 &lt;b&gt; left out." in page and "UAR of distorted recordings" in page and "<b>" not in page
    assert json.loads(json.dumps(result)) == result
