"""A report of all results, as HTML in a single file and as Markdown."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jinja2
import pandas as pd

from ser_plugins.evaluation.compare import compare
from ser_plugins.evaluation.page import measure as interval_text
from ser_plugins.evaluation.protocol import Reference
from ser_plugins.evaluation.results import Run
from ser_plugins.evaluation.system import System
from ser_plugins.evaluation.tables import MEASURES
from ser_plugins.experiments.gallery import Picture, draw_figures
from ser_plugins.experiments.layout import ABSENT, Cell, Table, link, number
from ser_plugins.experiments.published import measure, of_table, tables
from ser_plugins.experiments.runs import Experiment, read_experiments, sweep_runs
from ser_plugins.files import atomic_write

TITLE = "Speech emotion recognition: results"
TEMPLATE = Path(__file__).with_name("page.html")
DIFFERENCES = (
    "Row minus column, in percentage points, with the 95 % bootstrap interval over actors. p is of Wilcoxon's "
    "signed-rank test over the accuracies of the actors, with Holm's correction for the pairs of the table."
)
NAMES = ("strategy", "corpus", "seed", "setting", "fold")


@dataclass(frozen=True)
class Page:
    """The content of the report in order: introduction, tables of means, figures, tables of single folds."""

    introduction: str
    means: list[Table]
    pictures: list[Picture]
    folds: list[Table]


def write_report(results: Path) -> Path:
    """Draw the figures, and write ``report.html`` and ``report.md`` of the results in a folder; return the first."""
    experiments = read_experiments(results)
    lines = [(one, run) for one in experiments for run in one.runs]
    page = Page(
        f"{len(lines)} finished folds of {len(experiments)} experiments. Each number links to its run.",
        [*paper_tables(experiments, results), *comparisons(experiments, results), *sweep_tables(experiments, results)],
        draw_figures(results),
        [folds_table(lines, results), provenance_table(lines)],
    )
    atomic_write(results / "report.md", markdown(page, results))
    atomic_write(results / "report.html", html(page, results))
    return results / "report.html"


def html(page: Page, folder: Path) -> str:
    """Write the page as a single HTML file with its figures."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["link"] = partial(link, page_folder=folder)
    environment.filters["svg"] = lambda path: base64.b64encode(path.with_suffix(".svg").read_bytes()).decode()
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(title=TITLE, page=page)


def markdown(page: Page, folder: Path) -> str:
    """Write the page as Markdown with the PNGs of the figures."""
    figures = [f"![{one.caption}]({link(one.path, folder)})\n\n{one.caption}.\n" for one in page.pictures]
    means, folds = ([table.markdown() for table in tables] for tables in (page.means, page.folds))
    return "\n".join([f"# {TITLE}\n", f"{page.introduction}\n", *means, "## Figures\n", *figures, *folds])


def paper_tables(experiments: Sequence[Experiment], folder: Path) -> list[Table]:
    """Lay out Tables 2 and 3; S5 is in both, and is no reason for a Table 3 by itself."""
    second, third = (of_table(experiments, number) for number in (2, 3))
    found = tables(measure(second, folder, 2), 2) if second else []
    if any(one not in second for one in third):
        found += tables(measure(third, folder, 3), 3)
    return found


def comparisons(experiments: Sequence[Experiment], folder: Path) -> list[Table]:
    """Tabulate the differences of experiments that predicted the same utterances, each row minus each column."""
    groups: dict[tuple[str, str], dict[Path, pd.DataFrame]] = {}
    for one in experiments:
        if one.setting is None and "corpora" not in one.runs[0].metrics:
            frames = [run.predictions().assign(block=run.fold) for run in one.runs]
            table = pd.concat(frames).sort_values(["block", "id"], ignore_index=True)
            same = table[["block", "id", "emotion"]].to_csv(index=False)
            groups.setdefault((one.corpus_title, same), {})[one.folder] = table
    return [_comparison(title, group, folder) for (title, _), group in groups.items() if len(group) > 1]


def _comparison(title: str, group: Mapping[Path, pd.DataFrame], folder: Path) -> Table:
    names = {path.relative_to(folder).as_posix(): link(path, folder) for path in group}
    systems = [System(name, table, None) for name, table in zip(names, group.values(), strict=True)]
    used = set().union(*(table[column] for table in group.values() for column in ("emotion", "predicted")))
    found = compare(systems, Reference(title, tuple(sorted(used)), systems[0].table))
    texts = {
        (pair["first"], pair["second"]): f"{interval_text(pair['accuracy'])}, p {pair['p_holm']:.3f}"
        for pair in found["pairs"]
    }
    order = list(names)
    rows = [
        [Cell(name, names[name]), *(Cell(texts.get((name, other), "")) for other in order[1:])] for name in order[:-1]
    ]
    title = f"Differences in accuracy: {title}, {found['utterances']} utterances"
    return Table(title, ["", *order[1:]], rows, DIFFERENCES)


def sweep_tables(experiments: Sequence[Experiment], folder: Path) -> list[Table]:
    """Tabulate each sweep: means over the folds that all its values have."""
    found = []
    for key, part in sweep_runs(experiments).groupby("key"):
        rows = []
        for names, runs in part.groupby(["corpus", "strategy", "seed", "value"]):
            address = link(runs["folder"].iloc[0], folder)
            means = [Cell(number(runs[name].mean(), 100), address) for name in ("valid_accuracy", "accuracy")]
            texts = [f"{name:g}" if isinstance(name, float) else str(name) for name in names]
            rows.append([*map(Cell, texts), *means, Cell(", ".join(map(str, runs["fold"])))])
        columns = ["corpus", "strategy", "seed", str(key), "validation accuracy", "test accuracy", "folds"]
        note = "Means in %. A setting is selected on the validation actors and reported on the test actors."
        found.append(Table(f"Sweep of {key}", columns, rows, note))
    return found


def folds_table(lines: Sequence[tuple[Experiment, Run]], folder: Path) -> Table:
    """Tabulate all folds."""
    columns = [*NAMES, "accuracy", "UAR", "macro F1", "validation", "test clips", "epochs", "best", "minutes"]
    rows = []
    for one, run in lines:
        metrics, address = run.metrics, link(run.folder, folder)
        shares = [number(metrics[name], 100) for name in (*MEASURES, "valid_accuracy")]
        counts = [str(metrics[name]) for name in ("n_test", "epochs", "best_epoch")]
        texts = [*shares, *counts, number(metrics["seconds"] / 60)]
        rows.append([*_names(one, run), *(Cell(text, address) for text in texts)])
    note = "In %; validation is the accuracy of the best epoch on the validation actors, all else on the test actors."
    return Table("Folds", columns, rows, note)


def provenance_table(lines: Sequence[tuple[Experiment, Run]]) -> Table:
    """Tabulate the provenance of each fold; runs of earlier versions have no commit and no command."""
    columns = [*NAMES, "initial weights", "commit", "SHA-256 of folds.csv", "versions", "command"]
    rows = []
    for one, run in lines:
        metrics, checksum = run.metrics, one.folder / "folds.csv.sha256"
        digest = checksum.read_text(encoding="utf-8").split()[0] if checksum.is_file() else ABSENT
        versions = ", ".join(" ".join(pair) for pair in metrics["versions"].items())
        facts = [metrics["pretrained_encoder"] or "none", metrics.get("commit") or ABSENT, digest, versions]
        rows.append([*_names(one, run), *map(Cell, [*facts, metrics.get("command", ABSENT)])])
    return Table("Provenance", columns, rows, "A commit that ends in -dirty had uncommitted changes.")


def _names(one: Experiment, run: Run) -> list[Cell]:
    setting = f"{one.setting[0]} {one.setting[1]:g}" if one.setting else ABSENT
    return list(map(Cell, (one.strategy, one.corpus_title, str(one.seed), setting, str(run.fold))))
