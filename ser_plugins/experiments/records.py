"""Records: what the repository keeps of a published run, metrics and predictions of its folds."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

from ser_plugins.errors import InputError
from ser_plugins.evaluation.results import METRICS, PREDICTIONS, read_runs
from ser_plugins.files import atomic_write

OWN_FOLDERS = re.compile(r" --(cache|output)_folder \S+")  # of the machine that ran it
DIGITS = 3  # of the log-probabilities


def record(folder: Path, records: Path) -> Path:
    """Copy metrics and predictions of the finished folds of an experiment; return the record's folder.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the folds, as ``results/S1/ravdess/1``.
    records : pathlib.Path
        Folder of all records. The record lies in ``<strategy>/<corpus>/<seed>``.

    Raises
    ------
    InputError
        If the folder has no finished fold, or the audio is synthetic.
    """
    runs = read_runs(folder)
    if not runs:
        raise InputError(f"{folder} has no finished fold; give a folder as results/S1/ravdess/1")
    first = runs[0].metrics
    if first["synthetic"]:
        raise InputError(f"{folder} is of synthetic audio, of which no figure is published")
    target = records / str(first["strategy"]) / str(first["corpus"]) / str(first["seed"])
    for run in runs:
        table = run.scores()
        classes = [name for name in table.columns if name not in {*PREDICTIONS, "corpus"}]
        table[classes] = table[classes].astype(float).round(DIGITS)
        place = target / f"fold{run.fold}"
        text = table.to_csv(index=False, lineterminator="\n")
        atomic_write(place / "predictions.csv.gz", gzip.compress(text.encode(), mtime=0))  # the same bytes each time
        kept = {key: value for key, value in run.metrics.items() if key != "confusion"}
        kept["command"] = OWN_FOLDERS.sub("", str(kept["command"]))
        atomic_write(place / METRICS, json.dumps(kept, indent=1) + "\n")
    return target
