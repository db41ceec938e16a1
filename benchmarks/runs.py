"""One table of finished runs, and their means over folds.

python benchmarks/runs.py FOLDER … takes every metrics.json of a fold below the FOLDERs, and writes
benchmarks/results/runs.md.
"""

import json
import statistics
import sys
from itertools import groupby
from pathlib import Path

from ser_plugins.files import atomic_write

HEAD = "| strategy | corpus | fold | first weights | epochs (best) | valid acc. | accuracy | UAR | macro F1 | minutes |"

MEASURES = ("valid_accuracy", "accuracy", "uar", "macro_f1")
MEANS = "| strategy | corpus | mean of folds | valid acc. | accuracy | UAR | macro F1 |"


def row(metrics: dict) -> str:
    percent = [f"{100 * metrics[name]:.1f}" for name in MEASURES]
    epochs = f"{metrics['epochs']} ({metrics['best_epoch']})"
    names = [metrics["strategy"], metrics["corpus"], metrics["fold"], metrics["pretrained_encoder"], epochs]
    return f"| {' | '.join(map(str, [*names, *percent, round(metrics['seconds'] / 60)]))} |"


def means(found: list[dict]) -> list[str]:
    lines = []
    for (corpus, strategy), group in groupby(found, key=lambda metrics: (metrics["corpus"], metrics["strategy"])):
        runs = list(group)
        values = [statistics.mean(100 * run[name] for run in runs) for name in MEASURES]
        folds = ", ".join(str(run["fold"]) for run in runs)
        lines.append(f"| {strategy} | {corpus} | {folds} | {' | '.join(f'{value:.1f}' for value in values)} |")
    return lines


def main() -> None:
    files = sorted(file for folder in sys.argv[1:] for file in Path(folder).rglob("fold*/metrics.json"))
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    found.sort(key=lambda metrics: (metrics["corpus"] != "ravdess", metrics["strategy"], metrics["fold"]))
    rules = ["|---" * (head.count("|") - 1) + "|" for head in (HEAD, MEANS)]
    table = "\n".join([HEAD, rules[0], *map(row, found), "", MEANS, rules[1], *means(found)])
    atomic_write(Path("benchmarks/results/runs.md"), table + "\n")
    print(table)


if __name__ == "__main__":
    main()
