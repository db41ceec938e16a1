"""An evaluation as text, and as one HTML page with its figures."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from ser_plugins.evaluation.figures import (
    confusion_size,
    draw_actors,
    draw_confusion,
    draw_coverage,
    draw_reliability,
    draw_stress,
    svg,
)

TEMPLATE = Path(__file__).with_name("page.html")
NAMES = {
    **{"accuracy": "accuracy", "uar": "UAR", "macro_f1": "macro F1"},
    **{"ece": "calibration error", "brier": "Brier score", "log_loss": "log-loss"},
}
STRESS = {"accuracy": "accuracy", "uar": "UAR", "changed": "changed answers", "difference": "UAR, women − men"}
NOT_PERCENT = ("brier", "log_loss")
COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.25)
NOTE = (
    "Percent, except for the Brier score and the log-loss. In brackets: 95 % bootstrap interval over actors. "
    "UAR is the mean recall of the emotions."
)


def tables(result: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Lay out the result of `evaluate` as tables of text, by title."""
    measures = [[label, measure(result[key], key)] for key, label in NAMES.items() if key in result]
    recalls = [[label, measure(found)] for label, found in result["recall"].items()]
    found = {
        "Measures": pd.DataFrame(measures, columns=["measure", "value"]),
        "Recall": pd.DataFrame(recalls, columns=["emotion", "recall"]),
    }
    if result["folds"]:
        found["Folds"] = _folds(result["folds"])
    for name, parts in result["groups"].items():
        found[f"By {name}"] = pd.DataFrame([_part(one, name) for one in parts])
    if "risk_coverage" in result:
        found["Answering only when confident"] = _coverages(result["risk_coverage"]["points"])
    if "stress" in result:
        found["Distortions"] = stress_table(result["stress"])
    return found


def stress_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Lay out the result of `measure_stress` as a table of text."""
    columns = {key: label for key, label in STRESS.items() if key in rows[0]}
    return pd.DataFrame(
        [
            {"distortion": row["distortion"], **{label: measure(row[key]) for key, label in columns.items()}}
            for row in rows
        ]
    )


def measure(found: Mapping[str, float | None] | float, key: str = "accuracy") -> str:
    """Write a measure and its interval.

    Example
    -------
    >>> measure({"value": 0.7375, "low": 0.6819, "high": 0.7875})
    '73.8 [68.2, 78.8]'
    """
    numbers = dict(found) if isinstance(found, Mapping) else {"value": found}
    factor, digits = (1, 3) if key in NOT_PERCENT else (100, 1)
    texts = ["–" if x is None else f"{factor * x:.{digits}f}" for x in numbers.values()]
    interval = f" [{texts[1]}, {texts[2]}]" if numbers.get("low") is not None else ""
    return f"{texts[0]}{interval}"


def text(result: Mapping[str, Any]) -> str:
    """Write an evaluation as text; the actors are left to the page."""
    found = tables(result)
    del found["By actor"]
    parts = [f"{title}\n{frame.to_string(index=False)}" for title, frame in found.items()]
    return "\n\n".join(["\n".join([headline(result), *result.get("notes", ())]), *parts, NOTE])


def headline(result: Mapping[str, Any]) -> str:
    """Name what was evaluated."""
    return f"{result['system']} on {result['corpus']}: {result['utterances']} utterances of {result['speakers']} actors"


def html(result: Mapping[str, Any]) -> str:
    """Write an evaluation as one HTML page with its figures."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        title=headline(result),
        notes=[*result.get("notes", ()), NOTE],
        figures={title: base64.b64encode(figure).decode() for title, figure in figures(result).items()},
        tables={title: frame.to_html(index=False, border=0) for title, frame in tables(result).items()},
    )


def figures(result: Mapping[str, Any]) -> dict[str, bytes]:
    """Draw the figures of an evaluation: SVG, by caption."""
    size = confusion_size(result["labels"])
    confusion = partial(draw_confusion, confusion=result["confusion"], labels=result["labels"], title="")
    found = {
        "Confusion matrix": svg(confusion, size, size),
        "Accuracy of each actor": svg(partial(draw_actors, actors=result["groups"]["actor"]), 5, 4),
    }
    if "reliability" in result:
        points = result["risk_coverage"]["points"]
        found["Reliability diagram"] = svg(partial(draw_reliability, bins=result["reliability"]), 4.5, 4.5)
        found["Accuracy against coverage"] = svg(partial(draw_coverage, points=points), 5, 4)
    if "stress" in result:
        found["UAR of distorted recordings"] = svg(partial(draw_stress, rows=result["stress"]), 5.5, 5)
    return found


def _part(one: Mapping[str, Any], name: str) -> dict[str, Any]:
    counts = {"utterances": one["utterances"], **({} if name == "actor" else {"actors": one["speakers"]})}
    return {name: one["name"], **counts, **{NAMES[key]: measure(one[key]) for key in ("accuracy", "uar")}}


def _folds(folds: list[dict[str, Any]]) -> pd.DataFrame:
    rows = [_part(one, "fold") for one in folds]
    means = {key: np.array([one[key] for one in folds]) for key in ("accuracy", "uar")}
    for name, function in (("mean", np.mean), ("std", partial(np.std, ddof=1))):
        if len(folds) > 1:
            rows.append({"fold": name, **{NAMES[key]: measure(float(function(x))) for key, x in means.items()}})
    return pd.DataFrame(rows).astype({"utterances": "Int64", "actors": "Int64"}).astype(object).fillna("")


def _coverages(points: list[dict[str, float]]) -> pd.DataFrame:
    rows = []
    for wanted in COVERAGES:
        one = next(point for point in points if point["coverage"] >= wanted - 1e-9)
        rows.append([measure(one["coverage"]), measure(one["probability"]), measure(one["accuracy"])])
    return pd.DataFrame(rows, columns=["answered", "probability from", "accuracy"]).drop_duplicates()
