"""The paper's Tables 2 and 3 from results on disk, its own numbers beside ours."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import bootstrap

from ser_plugins.errors import InputError
from ser_plugins.evaluation.results import Experiment, read_experiments
from ser_plugins.experiments.layout import ABSENT, Cell, Table, link, number
from ser_plugins.files import atomic_write

PUBLISHED = Path(__file__).with_name("published.csv")
SPREAD = ["mean", "min", "max", "std"]
COLUMNS = [
    *("strategy", "seed", "first weights", "folds", "actors", *SPREAD, "95 % interval", "UAR", "macro F1"),
    *(f"paper {name}" for name in SPREAD),
]
NOTE = (
    "Accuracy on test actors in %, over the folds; UAR and macro F1 are means over the folds. The interval is the 95 % "
    "bootstrap interval of the mean, test actors resampled: clips of one actor are not independent, and folds share "
    "training data. Of few actors it is too narrow, and it does not cover the choice of the seed."
)
TOLD = "told more than others: all test utterances of an actor, unlabelled, to know the voice by"


def accuracy_interval(frames: Sequence[pd.DataFrame]) -> tuple[float, float]:
    """95 % bootstrap interval of the mean accuracy over folds, test actors resampled; NaN of a single actor.

    The utterances of one actor are right or wrong together, and the folds are few and share training data: of what was
    drawn at random, the actors are the unit. An utterance weighs as in the mean over folds: 1 / size of its fold.

    Example
    -------
    >>> fold = {"speaker": ["anna", "ben"], "emotion": ["sad", "sad"], "predicted": ["sad", "calm"]}
    >>> accuracy_interval([pd.DataFrame(fold)])
    (0.0, 1.0)
    """
    table = pd.concat([frame.assign(weight=1 / len(frame)) for frame in frames])
    table["right"] = table["weight"].where(table["emotion"] == table["predicted"], 0.0)
    actors = table.groupby("speaker")[["right", "weight"]].sum()
    if len(actors) < 2:
        return float("nan"), float("nan")
    found = bootstrap(
        (actors["right"].to_numpy(), actors["weight"].to_numpy()),
        lambda right, weight, axis: right.sum(axis) / weight.sum(axis),
        paired=True,
        method="percentile",
        rng=0,
    ).confidence_interval
    return float(found.low), float(found.high)


def of_table(experiments: Iterable[Experiment], number: int) -> list[Experiment]:
    """Experiments of Table 2, whatever is not of Table 3 alone, or of Table 3, the methods that it compares.

    A sweep is of none.
    """
    published = pd.read_csv(PUBLISHED)
    listed = {table: set(part["strategy"]) for table, part in published.groupby("table")}
    whole = [one for one in experiments if one.setting is None]
    if number == 3:
        return [one for one in whole if one.strategy in listed[3]]
    return [one for one in whole if one.strategy not in listed[3] - listed[2]]


def measure(experiments: Iterable[Experiment], folder: Path, number: int) -> pd.DataFrame:
    """One row an experiment and one for each published result that nothing was measured beside; in percent.

    An experiment on merged corpora has a row for each of them, too.

    Parameters
    ----------
    experiments : iterable of Experiment
        What was run, one or more.
    folder : pathlib.Path
        Folder of the table; the column ``folder`` is relative to it.
    number : {2, 3}
        The paper's table that published results are of. Where it does not tell whose a number is, none is given.
    """
    rows = pd.DataFrame([_row(one, folder) for whole in experiments for one in (whole, *whole.corpora())])
    published = pd.read_csv(PUBLISHED)
    published = published[(published["table"] == number) & published["corpus"].isin(rows["corpus"])]
    published = published.drop(columns="table").rename(columns={name: f"paper_{name}" for name in SPREAD})
    table = rows.merge(published, "outer", ["corpus", "strategy"])
    return table.sort_values(["corpus", "strategy", "seed"], ignore_index=True).convert_dtypes()


def _row(one: Experiment, folder: Path) -> dict[str, Any]:
    metrics = pd.DataFrame([run.metrics for run in one.runs]).set_index("fold")
    accuracy = 100 * metrics["accuracy"]
    low, high = accuracy_interval([run.predictions() for run in one.runs])
    return {
        "corpus": one.corpus,
        "strategy": one.strategy,
        "seed": one.seed,
        "synthetic": one.synthetic,
        "told_speakers": one.told_speakers,
        "first_weights": _first_weights(metrics["pretrained_encoder"]),
        "n_folds": len(one.runs),
        "n_actors": pd.concat([run.predictions()["speaker"] for run in one.runs]).nunique(),
        **{name: accuracy.agg(name) for name in SPREAD},
        "low": 100 * low,
        "high": 100 * high,
        "uar": 100 * metrics["uar"].mean(),
        "macro_f1": 100 * metrics["macro_f1"].mean(),
        "min_fold": accuracy.idxmin(),
        "max_fold": accuracy.idxmax(),
        "folder": link(one.folder, folder),
    }


def _first_weights(sources: pd.Series[str]) -> str:
    """Name the encoders that folds, the index, began with; by ``{fold}`` where each had its own."""
    given = set(sources)
    alike = {source.replace(f"fold{fold}", "fold{fold}") for fold, source in sources.items()}
    return ", ".join(sorted(alike if len(alike) < len(given) else given))


def write_table(results: Path, number: int) -> Path:
    """Write ``table<number>.csv``, ``.json`` and ``.md`` of the results in a folder; return the last."""
    experiments, name = of_table(read_experiments(results), number), f"table{number}"
    if not experiments:
        raise InputError(f"{results} holds no run of Table {number}; run recipes/experiments.py {name}")
    frame = measure(experiments, results, number)
    atomic_write(results / f"{name}.csv", frame.to_csv(index=False, lineterminator="\n"))
    records = json.loads(frame.to_json(orient="records", double_precision=15))
    atomic_write(results / f"{name}.json", json.dumps(records, indent=2, ensure_ascii=False) + "\n")
    path = results / f"{name}.md"
    atomic_write(path, "\n".join(table.markdown() for table in tables(frame, number)))
    return path


def tables(frame: pd.DataFrame, number: int) -> list[Table]:
    """Lay out Table 2 or 3: a table a corpus, each number linked to the folder that it was read from."""
    found = []
    for corpus, part in frame.groupby("corpus", sort=False):
        title = f"Table {number}: {corpus}{' (synthetic audio)' if part['synthetic'].fillna(False).any() else ''}"
        sources = "; ".join(dict.fromkeys(part["source"].dropna()))
        told = ", ".join(dict.fromkeys(part["strategy"][part["told_speakers"].fillna(False)]))
        notes = [NOTE, f"{told}: {TOLD}." if told else "", f"Paper: {sources}." if sources else ""]
        note = " ".join(filter(None, notes))
        columns = COLUMNS if sources else COLUMNS[: -len(SPREAD)]
        cells = [_cells(row)[: len(columns)] for _, row in part.iterrows()]
        found.append(Table(title, columns, cells, note))
    return found


def _cells(row: pd.Series[Any]) -> list[Cell]:
    paper = [Cell(number(row[f"paper_{name}"])) for name in SPREAD]
    if pd.isna(row["folder"]):
        return [Cell(row["strategy"]), *[Cell(ABSENT)] * (len(COLUMNS) - 5), *paper]
    folder = row["folder"]
    best = {name: f"{folder}/fold{row[f'{name}_fold']}" for name in ("min", "max")}
    interval = ABSENT if pd.isna(row["low"]) else f"{number(row['low'])}–{number(row['high'])}"
    names = [row["strategy"], *(str(row[name]) for name in ("seed", "first_weights", "n_folds", "n_actors"))]
    return [
        *map(Cell, names),
        *(Cell(number(row[name]), best.get(name, folder)) for name in SPREAD),
        *(Cell(text, folder) for text in (interval, number(row["uar"]), number(row["macro_f1"]))),
        *paper,
    ]
