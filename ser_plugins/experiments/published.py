"""Tables 2 and 3 of the paper from results on disk, next to the published numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from ser_plugins.errors import InputError
from ser_plugins.evaluation.intervals import accuracy_interval
from ser_plugins.experiments.layout import ABSENT, Cell, Table, link, number
from ser_plugins.experiments.runs import Experiment, read_experiments
from ser_plugins.files import atomic_write

PUBLISHED = Path(__file__).with_name("published.csv")
SPREAD = ["mean", "min", "max", "std"]
COLUMNS = [
    *("strategy", "seed", "initial weights", "folds", "actors", *SPREAD, "95 % interval", "UAR", "macro F1"),
    *(f"paper {name}" for name in SPREAD),
]
NOTE = (
    "Accuracy on test actors in %, over the folds; UAR and macro F1 are means over the folds. The interval is the 95 % "
    "bootstrap interval of the mean, test actors resampled: clips of one actor are not independent, and folds share "
    "training data. Of few actors it is too narrow, and it does not cover the choice of the seed."
)
SPEAKER_NOTE = "speaker-normalised, with all unlabelled test utterances of an actor, which the others do not use"


def of_table(experiments: Iterable[Experiment], number: int) -> list[Experiment]:
    """Select the experiments of Table 3, the methods it compares, or of Table 2, all except those only in Table 3.

    Sweeps are in neither.
    """
    published = pd.read_csv(PUBLISHED)
    listed = {table: set(part["strategy"]) for table, part in published.groupby("table")}
    whole = [one for one in experiments if one.setting is None]
    if number == 3:
        return [one for one in whole if one.strategy in listed[3]]
    return [one for one in whole if one.strategy not in listed[3] - listed[2]]


def measure(experiments: Iterable[Experiment], folder: Path, number: int) -> pd.DataFrame:
    """Tabulate experiments and published results, in percent.

    Parameters
    ----------
    experiments : iterable of Experiment
        The experiments, at least one.
    folder : pathlib.Path
        Folder of the table; the column ``folder`` is relative to it.
    number : {2, 3}
        Table of the paper. Published numbers whose corpus the paper does not name are left out.

    Returns
    -------
    pandas.DataFrame
        One row per experiment, also for each of several merged corpora, and one per published result without an
        experiment.
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
        "speaker_normalization": one.normalizes_by_speaker,
        "overlaps": one.overlaps,
        "initial_weights": _initial_weights(metrics["pretrained_encoder"]),
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


def _initial_weights(sources: pd.Series[Any]) -> str:
    """Name the initial weights of the folds (the index); ``{fold}`` stands for the number of the fold."""
    sources = sources.fillna("none")  # of a run from random weights
    given = set(sources)
    alike = {source.replace(f"fold{fold}", "fold{fold}") for fold, source in sources.items()}
    return ", ".join(sorted(alike if len(alike) < len(given) else given))


def write_table(results: Path, number: int) -> Path:
    """Write ``table<number>.csv``, ``.json`` and ``.md`` of the results in a folder; return the last."""
    experiments, name = of_table(read_experiments(results), number), f"table{number}"
    if not experiments:
        raise InputError(f"{results} has no run of Table {number}; run recipes/experiments.py {name}")
    frame = measure(experiments, results, number)
    atomic_write(results / f"{name}.csv", frame.to_csv(index=False, lineterminator="\n"))
    records = json.loads(frame.to_json(orient="records", double_precision=15))
    atomic_write(results / f"{name}.json", json.dumps(records, indent=2, ensure_ascii=False) + "\n")
    path = results / f"{name}.md"
    atomic_write(path, "\n".join(table.markdown() for table in tables(frame, number)))
    return path


def tables(frame: pd.DataFrame, number: int) -> list[Table]:
    """Lay out Table 2 or 3: one table per corpus, each number linked to the folder it was read from."""
    found = []
    for corpus, part in frame.groupby("corpus", sort=False):
        title = f"Table {number}: {corpus}{' (synthetic audio)' if part['synthetic'].fillna(False).any() else ''}"
        sources = "; ".join(dict.fromkeys(part["source"].dropna()))
        normalised = ", ".join(dict.fromkeys(part["strategy"][part["speaker_normalization"].fillna(False)]))
        notes = [NOTE, f"{normalised}: {SPEAKER_NOTE}." if normalised else "", f"Paper: {sources}." if sources else ""]
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
    names = [row["strategy"], *(str(row[name]) for name in ("seed", "initial_weights", "n_folds", "n_actors"))]
    return [
        *map(Cell, names),
        *(Cell(number(row[name]), best.get(name, folder)) for name in SPREAD),
        *(Cell(text, folder) for text in (interval, number(row["uar"]), number(row["macro_f1"]))),
        *paper,
    ]
