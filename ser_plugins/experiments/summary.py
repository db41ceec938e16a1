"""RESULTS.md and the table of the README, from the records in the repository."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path

import pandas as pd

from ser_plugins.configuration import HPARAMS
from ser_plugins.errors import InputError
from ser_plugins.evaluation.intervals import difference_interval
from ser_plugins.evaluation.protocol import N_FOLDS
from ser_plugins.evaluation.results import Run
from ser_plugins.experiments import across, enrolment
from ser_plugins.experiments.ensemble import average, measure_folds, shared_runs
from ser_plugins.experiments.layout import ABSENT, Cell, Table, number
from ser_plugins.experiments.published import measure
from ser_plugins.experiments.runs import Experiment, read_experiments
from ser_plugins.files import atomic_write

CORPORA = {"ravdess": "RAVDESS", "cremad": "CREMA-D"}
HEADER = re.compile(r"# [^:\n]+: (?P<about>.+?)\.(?: |\n)")
MEASURED = ["deviation", "UAR", "paper"]  # beside the accuracy on each corpus
PLACES = "<!-- {} -->", "<!-- end of {} -->"  # marks around a table
UTTERANCE = "-utterance"  # ending of the presets of the control
STRATEGIES = [f"S{number}" for number in range(1, 10)]
COMPETITORS = ["Bhavan", "Issa", "Kumar", "Ghaleb", "Huang"]
OTHERS = ["Chi", "Farooq", "Huang2018", "Lian", "Ma", "Mao", "Mirsamadi", "Tzinis"]  # of the paper's related work
IN_README = [*STRATEGIES[:5], "Probe", "Probe-speeds", "Probe-normalised", "Probe-speeds-normalised"]
EXPECTED = [*STRATEGIES, *COMPETITORS, *OTHERS]
# Steps of the paper, then comparisons with later strategies: first minus second.
PAIRS = [
    ("S2", "S1"),
    ("S3", "S1"),
    ("S3", "S2"),
    ("S4", "S3"),
    ("S5", "S3"),
    ("S5", "S4"),
    ("S6", "S3"),
    ("S9", "Probe"),
    ("Probe-joint", "Probe"),
    ("Probe-joint", "Probe-whisper"),
    ("Probe-speeds", "Probe-joint"),
    ("Probe-joint-normalised", "Probe-normalised"),
    ("Probe-speeds-normalised", "Probe-joint-normalised"),
]
ENSEMBLES = [
    ("Probe", "Probe-whisper"),
    ("S3", "Probe", "Probe-whisper"),
    ("S3", "Probe-speeds"),
    ("Probe-normalised", "Probe-whisper-normalised"),
]

PROTOCOL = """\
# Results

`python recipes/experiments.py results` writes this page from the records in `results_records/`.

## Protocol

Ten folds of disjoint speakers, given by `folds.csv` and [docs/protocol.md](docs/protocol.md). A system is trained on
the training actors, tuned on the validation actors, and tested once on the test actors. Accuracy is the mean over the
folds, in percent. The interval is the 95 % bootstrap interval of the mean, test actors resampled. The paper's numbers
are those of its Table 2; [docs/paper.md](docs/paper.md) compares the protocols.
[docs/leaderboard.md](docs/leaderboard.md#systems) says what each system is. Each row has ten folds and seed 1 unless
it says otherwise. Deviation is the standard deviation over the folds; UAR is the mean over the folds.

RAVDESS and CREMA-D are complete, as Opus copies of 48 and 24 kbit/s decoded to WAV. Each run has one CPU core and no
GPU.
"""
NORMALISED = (
    "These systems subtract statistics of a test speaker, computed from all unlabelled test utterances of the speaker. "
    "They are not comparable with speaker-independent ones."
)

CONTROL = (
    "A control, not a result: utterances are divided at random, so the training part has utterances of the test "
    "speakers. The figures do not measure accuracy on unseen speakers; do not compare them with the tables above."
)
REPEAT = (
    "PRESET is the system in lower case, with `_` for `-`; CORPUS is `ravdess` or `cremad`. The `metrics.json` of each "
    "record has the command, the commit and the seconds of training. `results_records/folds.csv` has the accuracy of "
    "each fold."
)
GROUPS = ["overlaps", "speaker_normalization"]
HEADINGS = {
    (False, False): ("Speaker-independent", ""),
    (False, True): ("Speaker-normalised", NORMALISED),
    (True, False): ("Divided by utterance", CONTROL),
    (True, True): ("Divided by utterance, speaker-normalised", CONTROL),
}


def write_results(records: Path, page: Path, readme: Path, paper: Path) -> None:
    """Write ``RESULTS.md``, the tables of the README and of docs/paper.md, and ``folds.csv`` in ``records``."""
    experiments = read_experiments(records)
    frame = measured(experiments, records)
    texts = [(readme, {"results": readme_table(frame)})]
    texts += [(paper, {"results": paper_table(frame), "control": control_table(frame)})]
    pages = [(file, _replace(file, tables)) for file, tables in texts]
    atomic_write(records / "folds.csv", fold_table(experiments).to_csv(lineterminator="\n", float_format="%.2f"))
    atomic_write(page, results_page(experiments, frame, records))
    for file, text in pages:
        atomic_write(file, text)


def _replace(file: Path, tables: Mapping[str, str]) -> str:
    """Return the text of a file with other tables between their two marks."""
    text = file.read_text(encoding="utf-8")
    for name, table in tables.items():
        begin, end = (place.format(name) for place in PLACES)
        if begin not in text or end not in text:
            raise InputError(f"{file} has no place for the table; write the lines {begin} and {end}")
        text = f"{text.split(begin)[0]}{begin}\n{table}{end}{text.split(end)[1]}"
    return text


def measured(experiments: Sequence[Experiment], records: Path) -> pd.DataFrame:
    """Tabulate the experiments as Table 2 does, without published results that have no experiment."""
    return measure(experiments, records, 2).dropna(subset=["n_folds"])


def results_page(experiments: Sequence[Experiment], frame: pd.DataFrame, records: Path) -> str:
    """Write the page of all results, in Markdown; ``frame`` is `measured`."""
    parts = [PROTOCOL]
    for (overlaps, normalised), part in frame.groupby(GROUPS):
        title, note = HEADINGS[bool(overlaps), bool(normalised)]
        columns = ["system", *(name for corpus in CORPORA.values() for name in (corpus, *MEASURED))]
        systems = [rows for _, rows in part.groupby(["strategy", "seed"])]
        parts.append(_table(title, columns, [*map(_system, systems)], note))
    parts += [_differences(experiments), _ensembles(experiments)]
    if matrix := [*_rows(experiments, records, across.across_cells), *across.package_cells(records)]:
        parts.append(
            _table("Across corpora", ["system", "seed", "trained on", "folds", *CORPORA.values()], matrix, across.NOTE)
        )
    if enrolled := _rows(experiments, records, enrolment.enrolment_cells):
        columns = ["system", "seed", "corpus", *map(str, enrolment.CLIPS)]
        parts.append(_table("Enrolment of one speaker", columns, enrolled, enrolment.NOTE))
    return "\n".join([*filter(None, parts), _repeat(experiments), _missing(experiments)])


def systems(experiments: Iterable[Experiment]) -> str:
    """List what each system is, in Markdown."""
    return "\n".join([*(f"- {about(name)}" for name in sorted({one.strategy for one in experiments})), ""])


def readme_table(frame: pd.DataFrame) -> str:
    """Write the table of the README: some systems with ten folds, and the paper's numbers."""
    whole = frame[(frame["n_folds"] == N_FOLDS) & ~frame["overlaps"].astype(bool)]
    whole = whole[whole["strategy"].isin(IN_README)]
    rows = []
    for (normalised, strategy), part in whole.groupby(["speaker_normalization", "strategy"]):
        cells = [f"{'*speaker-normalised:* ' * bool(normalised)}{about(str(strategy))}"]
        for corpus in CORPORA:
            row = part[part["corpus"] == corpus].head(1)
            cells += [_interval(row.iloc[0]), _number(row.iloc[0]["paper_mean"])] if len(row) else [ABSENT, ABSENT]
        rows.append([*map(Cell, cells)])
    columns = ["system", "RAVDESS, 8 emotions", "paper", "CREMA-D, 6 emotions", "paper"]
    return "\n".join([*Table("", columns, rows).lines(), ""])


def paper_table(frame: pd.DataFrame) -> str:
    """Write the table of docs/paper.md: the paper's strategies on ten folds, with the paper's numbers."""
    whole = frame[(frame["n_folds"] == N_FOLDS) & ~frame["overlaps"].astype(bool) & frame["paper_mean"].notna()]
    rows = [
        [CORPORA[row["corpus"]], row["strategy"], _interval(row), *map(_number, (row["paper_mean"], gap))]
        for _, row in whole.iterrows()
        for gap in [row["mean"] - row["paper_mean"]]
    ]
    columns = ["corpus", "strategy", "accuracy", "paper", "difference"]
    return "\n".join([*Table("", columns, [[*map(Cell, row)] for row in rows]).lines(), ""])


def control_table(frame: pd.DataFrame) -> str:
    """Write the table of the control in docs/paper.md: each system divided by speaker and by utterance."""
    overlaps = frame["overlaps"].astype(bool)
    named = frame.assign(name=frame["strategy"].str.removesuffix(UTTERANCE))
    first, other = (named[(frame["n_folds"] == N_FOLDS) & kind] for kind in (~overlaps, overlaps))
    pairs = first.merge(other, on=["corpus", "name", "seed"], suffixes=("", "_control"))
    rows = [
        [CORPORA[row["corpus"]], row["name"], *map(_number, (row["mean"], row["mean_control"], gap))]
        for _, row in pairs.iterrows()
        for gap in [row["mean_control"] - row["mean"]]
    ]
    columns = ["corpus", "system", "divided by speaker", "divided by utterance", "difference"]
    return "\n".join([*Table("", columns, [[*map(Cell, row)] for row in rows]).lines(), ""])


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


def _system(rows: pd.DataFrame) -> list[str]:
    """Lay out the rows of a strategy and a seed, one a corpus: its name, then the measures on each corpus."""
    strategy, seed = rows.iloc[0][["strategy", "seed"]]
    cells = [strategy if seed == 1 else f"{strategy}, seed {seed}"]
    for corpus in CORPORA:
        found = rows[rows["corpus"] == corpus]
        cells += _measures(found.iloc[0]) if len(found) else [ABSENT] * (1 + len(MEASURED))
    return cells


def _measures(row: pd.Series) -> list[str]:
    folds = {N_FOLDS: "", 1: " (1 fold)"}.get(row["n_folds"], f" ({row['n_folds']} folds)")
    return [_interval(row) + folds, *(_number(row[name]) for name in ("std", "uar", "paper_mean"))]


def _together(experiments: Sequence[Experiment], names: Sequence[str], corpus: str) -> list[list[Run]]:
    """Runs of several strategies on the folds that all of them have; the first seed of each."""
    found = {one.strategy: one for one in reversed(experiments) if one.corpus == corpus}
    runs = shared_runs([found[name] for name in names]) if set(names) <= set(found) else [[]]
    return runs if runs[0] else []


def _differences(experiments: Sequence[Experiment]) -> str:
    rows = []
    for (corpus, title), (first, second) in product(CORPORA.items(), PAIRS):
        if runs := _together(experiments, (first, second), corpus):
            frames = [[run.predictions() for run in one] for one in runs]
            means = [sum(float(run.metrics["accuracy"]) for run in one) / len(one) for one in runs]
            ends = _ends(difference_interval(*frames))
            rows.append([title, f"{first} − {second}", str(len(runs[0])), _share(means[0] - means[1]), ends])
    note = "Percentage points, on the folds that both have; the interval resamples the actors of both together."
    columns = ["corpus", "pair", "folds", "difference", "95 % interval"]
    return _table("Differences", columns, rows, note) if rows else ""


def _ensembles(experiments: Sequence[Experiment]) -> str:
    rows = []
    for (corpus, title), names in product(CORPORA.items(), ENSEMBLES):
        if runs := _together(experiments, names, corpus):
            frames = [average(one) for one in zip(*runs, strict=True)]
            found = measure_folds(frames, runs[0][0].metrics["labels"])
            ends = _ends((found["low"], found["high"]))
            rows.append([title, " + ".join(names), str(len(frames)), _share(found["mean"]), ends, _share(found["uar"])])
    note = "The mean of the members' probabilities. An ensemble costs as much as its members together."
    columns = ["corpus", "members", "folds", "accuracy", "95 % interval", "UAR"]
    return _table("Ensembles", columns, rows, note) if rows else ""


def _rows(
    experiments: Iterable[Experiment], records: Path, measure: Callable[[Experiment, Path], list[str]]
) -> list[list[str]]:
    """Return a row for each experiment that has cells."""
    return [
        [one.strategy, str(one.seed), CORPORA[one.corpus], *cells]
        for one in experiments
        if (cells := measure(one, records))
    ]


def _repeat(experiments: Sequence[Experiment]) -> str:
    """Group the systems by their command, with its preset and corpus left out."""
    groups: dict[str, list[Experiment]] = {}
    for one in experiments:
        command = re.sub(r" --fold \S+", "", str(one.runs[0].metrics["command"])) + " --fold all"
        command = re.sub(r"hparams/\w+\.yaml", "hparams/PRESET.yaml", command)
        groups.setdefault(re.sub(rf"\b{one.corpus}\b", "CORPUS", command), []).append(one)
    commands = Counter(name for found in groups.values() for name in {one.strategy for one in found})
    rows = []
    for command, found in groups.items():
        several = {f"{one.strategy} on {CORPORA[one.corpus]}" for one in found if commands[one.strategy] > 1}
        names = {one.strategy for one in found if commands[one.strategy] == 1} | several
        rows.append([f"`{command}`", ", ".join(sorted(names))])
    return _table("How to repeat", ["command", "systems"], rows, REPEAT)


def _missing(experiments: Sequence[Experiment]) -> str:
    """List what has fewer than ten folds."""
    have = {(one.corpus, one.strategy): len(one.runs) for one in experiments}
    lines = []
    for corpus, title in CORPORA.items():
        counts = {name: have.get((corpus, name), 0) for name in EXPECTED}
        absent = [f"{name}{f' ({count} of 10 folds)' * bool(count)}" for name, count in counts.items() if count < 10]
        lines.append(f"- {title}: {', '.join(absent) or 'nothing'}")
    return "\n".join(["## Not run at these settings", "", *lines, ""])


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> str:
    return Table(title, columns, [[*map(Cell, row)] for row in rows], note).markdown()


def _interval(row: pd.Series) -> str:
    return f"{_number(row['mean'])} [{_number(row['low'])}, {_number(row['high'])}]"


def _ends(interval: Sequence[float]) -> str:
    return f"[{', '.join(map(_share, interval))}]"


def _share(value: float) -> str:
    return number(value, 100, digits=1)


def _number(value: float) -> str:
    return number(value, digits=1)
