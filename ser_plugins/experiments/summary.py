"""RESULTS.md and the table of the README, from the records in the repository."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from ser_plugins.configuration import HPARAMS
from ser_plugins.errors import InputError
from ser_plugins.experiments.layout import ABSENT
from ser_plugins.experiments.published import measure
from ser_plugins.experiments.runs import Experiment, read_experiments
from ser_plugins.files import atomic_write

CORPORA = {"ravdess": "RAVDESS", "cremad": "CREMA-D"}
HEADER = re.compile(r"# [^:\n]+: (?P<about>.+?)\.(?: |\n)")
BEGIN, END = "<!-- results -->", "<!-- end of results -->"
STRATEGIES = [f"S{number}" for number in range(1, 10)]
COMPETITORS = ["Bhavan", "Issa", "Kumar", "Ghaleb", "Huang"]
OTHERS = ["Chi", "Farooq", "Huang2018", "Lian", "Ma", "Mirsamadi", "Tzinis"]  # of the paper's related work
EXPECTED = [*STRATEGIES, *COMPETITORS, *OTHERS]

PROTOCOL = """\
# Results

`python recipes/experiments.py results` writes this page from the records in `results_records/`.

## Protocol

Ten folds of disjoint speakers, given by `folds.csv` and [docs/protocol.md](docs/protocol.md). A system is trained on
the training actors, tuned on the validation actors, and tested once on the test actors. Accuracy is the mean over the
folds, in percent. The interval is the 95 % bootstrap interval of the mean, test actors resampled. The paper's numbers
are those of its Table 2; [docs/paper.md](docs/paper.md) compares the protocols.

RAVDESS and CREMA-D are complete, as Opus copies of 48 and 24 kbit/s decoded to WAV. Each run has one CPU core and no
GPU.
"""
NORMALISED = (
    "These systems subtract statistics of a test speaker, from all of the speaker's unlabelled test utterances. They "
    "are not comparable with those above."
)


def write_results(records: Path, page: Path, readme: Path) -> None:
    """Write ``RESULTS.md``, the README's table, and the accuracy of each fold as ``folds.csv`` in ``records``."""
    experiments = read_experiments(records)
    atomic_write(records / "folds.csv", fold_table(experiments).to_csv(lineterminator="\n", float_format="%.2f"))
    atomic_write(page, results_page(experiments, records))
    text = readme.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise InputError(f"{readme} has no place for the table; write the lines {BEGIN} and {END}")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    atomic_write(readme, f"{before}{BEGIN}\n{readme_table(experiments, records)}{END}{after}")


def results_page(experiments: Sequence[Experiment], records: Path) -> str:
    """Write the page of all results, in Markdown."""
    frame = measure(experiments, records, 2).dropna(subset=["n_folds"])
    parts = [PROTOCOL]
    for corpus, title in CORPORA.items():
        for normalised in (False, True):
            part = frame[(frame["corpus"] == corpus) & (frame["speaker_normalization"] == normalised)]
            if len(part):
                heading = f"## {title}{', speaker-normalised' * normalised}"
                parts.append("\n".join([heading, "", *([NORMALISED, ""] if normalised else []), *_rows(part), ""]))
    folds = fold_table(experiments)
    cells = [[*map(str, name), *map(_number, row)] for name, row in zip(folds.index, folds.to_numpy(), strict=True)]
    parts.append(_table("Accuracy of each fold", [*map(str, folds.index.names), *map(str, folds.columns)], cells))
    parts.append(_repeat(experiments))
    parts.append(_missing(experiments))
    return "\n".join(parts)


def readme_table(experiments: Sequence[Experiment], records: Path) -> str:
    """Write the table of the README: a row a system, with the paper's numbers."""
    frame = measure(experiments, records, 2).dropna(subset=["n_folds"])
    lines = ["| system | RAVDESS, 8 emotions | paper | CREMA-D, 6 emotions | paper |", "|---|---|---|---|---|"]
    for normalised in (False, True):
        part = frame[(frame["speaker_normalization"] == normalised) & (frame["n_folds"] == 10)]
        for strategy in dict.fromkeys(part["strategy"]):
            cells = []
            for corpus in CORPORA:
                row = part[(part["strategy"] == strategy) & (part["corpus"] == corpus)].head(1)
                cells += [_interval(row.iloc[0]), _number(row.iloc[0]["paper_mean"])] if len(row) else [ABSENT, ABSENT]
            lines.append(f"| {'*speaker-normalised:* ' * normalised}{about(strategy)} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def fold_table(experiments: Iterable[Experiment]) -> pd.DataFrame:
    """Tabulate the accuracy of each fold in percent: a row an experiment, a column a fold."""
    rows = {
        (one.corpus, one.strategy, one.seed): {run.fold: 100 * run.metrics["accuracy"] for run in one.runs}
        for one in experiments
    }
    table = pd.DataFrame.from_dict(rows, orient="index").sort_index(axis=1)
    table.index = pd.MultiIndex.from_tuples(table.index, names=["corpus", "strategy", "seed"])
    return table


def about(strategy: str) -> str:
    """Describe a strategy by its name and the first line of its preset.

    Example
    -------
    >>> about("S1")
    'S1: from random weights, NetVLAD, softmax'
    """
    file = preset(strategy)
    found = HEADER.match(file.read_text(encoding="utf-8")) if file else None
    if found is None:
        return strategy
    return f"{strategy}: {found['about']}"


def preset(strategy: str) -> Path | None:
    """Find the preset of a strategy, if there is one."""
    line = f"strategy: {strategy}"
    return next((file for file in sorted(HPARAMS.glob("*.yaml")) if line in file.read_text("utf-8").splitlines()), None)


def _rows(part: pd.DataFrame) -> list[str]:
    columns = ["system", "seed", "folds", "accuracy", "deviation", "95 % interval", "UAR", "macro F1", "paper"]
    lines = [_line(columns), "|---" * len(columns) + "|"]
    for _, row in part.iterrows():
        values = [_number(row[name]) for name in ("mean", "std")]
        low = f"{_number(row['low'])}–{_number(row['high'])}"
        rest = [_number(row[name]) for name in ("uar", "macro_f1", "paper_mean")]
        lines.append(_line([about(row["strategy"]), str(row["seed"]), str(row["n_folds"]), *values, low, *rest]))
    return lines


def _repeat(experiments: Sequence[Experiment]) -> str:
    """One command a row: that of its first fold, for all of them."""
    cells = []
    for one in experiments:
        metrics = one.runs[0].metrics
        command = re.sub(r" --fold \S+", "", str(metrics["command"])) + " --fold all"
        versions = {str(run.metrics["commit"])[:10] for run in one.runs}
        minutes = sum(float(run.metrics["seconds"]) for run in one.runs) / 60
        cells.append([one.corpus, one.strategy, f"`{command}`", ", ".join(sorted(versions)), f"{minutes:.0f}"])
    return _table("How to repeat", ["corpus", "strategy", "command", "commit", "minutes of training"], cells)


def _missing(experiments: Sequence[Experiment]) -> str:
    """List what has fewer than ten folds."""
    have = {(one.corpus, one.strategy): len(one.runs) for one in experiments}
    lines = []
    for corpus, title in CORPORA.items():
        counts = {name: have.get((corpus, name), 0) for name in EXPECTED}
        absent = [f"{name}{f' ({count} of 10 folds)' * bool(count)}" for name, count in counts.items() if count < 10]
        lines.append(f"- {title}: {', '.join(absent) or 'nothing'}")
    return "\n".join(["## Not run at these settings", "", *lines, ""])


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join([f"## {title}", "", _line(columns), "|---" * len(columns) + "|", *map(_line, rows), ""])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _interval(row: pd.Series) -> str:
    return f"{_number(row['mean'])} [{_number(row['low'])}, {_number(row['high'])}]"


def _number(value: float) -> str:
    return ABSENT if pd.isna(value) else f"{value:.1f}"
