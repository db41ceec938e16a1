"""All figures of a folder of results: figures 6, 7, 9, 10 and 11 of the paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from ser_plugins.evaluation.figures import confusion_figure
from ser_plugins.evaluation.results import Run
from ser_plugins.experiments.figures import sweep_figure, tsne_figure
from ser_plugins.experiments.runs import Experiment, read_experiments, sweep_runs

COMPARED = ("S3", "S4", "S5")  # softmax, triplet, emotion constraint
PAPER = {"clusters": 10, "ghost_clusters": 10, "alpha": 11, "beta": 11}


@dataclass(frozen=True)
class Picture:
    """A figure: its PNG, an SVG of the same name, and its caption."""

    path: Path
    caption: str
    wide: bool = False


def draw_figures(results: Path) -> list[Picture]:
    """Draw all figures of the results into ``figures/``."""
    return list(tqdm(_pictures(results, read_experiments(results)), desc="figures", unit="figure"))


def _pictures(results: Path, experiments: Sequence[Experiment]) -> Iterator[Picture]:
    folder = results / "figures"
    corpora: dict[tuple[str, int], list[Experiment]] = {}
    for one in experiments:
        if one.setting is None:
            name = "-".join(["confusion", *one.folder.relative_to(results).parts])
            yield draw_confusion(one, folder / f"{name}.png")
            corpora.setdefault((one.corpus, one.seed), []).append(one)
    for (corpus, seed), group in corpora.items():
        yield from draw_tsne(group, folder / f"tsne-{corpus}-{seed}.png")
    for (key, where), table in sweep_runs(experiments).groupby(["key", "corpus"]):
        yield draw_sweep(str(key), str(where), table, folder / f"sweep-{key}-{where}.png")


def draw_confusion(one: Experiment, path: Path) -> Picture:
    """Draw the confusion matrix of all folds of an experiment."""
    counts = np.sum([run.metrics["confusion"] for run in one.runs], axis=0)
    folds = f"{len(one.runs)} folds" if len(one.runs) > 1 else f"fold {one.runs[0].fold}"
    title = f"{one.strategy}, {one.corpus_title}, {folds}"
    confusion_figure(counts.tolist(), one.runs[0].metrics["labels"], title, path)
    return Picture(path, f"{title}, seed {one.seed}: confusion matrix, % of each true emotion (the paper's figure 9)")


def draw_tsne(group: Sequence[Experiment], path: Path) -> Iterator[Picture]:
    """Draw embeddings of S3, S4 and S5 side by side, of the fold that most of them have; nothing if none has any.

    Folds are not pooled: each has a network, and so an embedding space, of its own.
    """
    found: dict[int, dict[str, Run]] = {}
    for one in group:
        for run in one.runs:
            if one.strategy in COMPARED and run.embeddings_file.is_file():
                found.setdefault(run.fold, {})[one.strategy] = run
    if not found:
        return
    fold = max(found, key=lambda number: (len(found[number]), -number))
    runs = found[fold]
    panels = {name: (run.embeddings(), run.predictions()["emotion"].tolist()) for name, run in runs.items()}
    title = f"{group[0].corpus_title}, fold {fold}"
    tsne_figure(panels, next(iter(runs.values())).metrics["labels"], title, path)
    yield Picture(path, f"{title}: embeddings of the test actors, t-SNE (the paper's figures 6 and 7)", wide=True)


def draw_sweep(key: str, corpus: str, table: pd.DataFrame, path: Path) -> Picture:
    """Draw accuracy against the setting of a sweep."""
    folds = sorted(set(table["fold"]))
    title = f"{corpus}, fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"
    sweep_figure(table, key, title, path)
    paper = f" (the paper's figure {PAPER[key]})" if key in PAPER else ""
    return Picture(path, f"{title}: accuracy against {key}{paper}; a setting is chosen by the validation actors")
