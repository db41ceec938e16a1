"""One table of finished runs.

python benchmarks/runs.py FOLDER … takes every metrics.json of a fold below the FOLDERs, and writes
benchmarks/results/runs.md.
"""

import json
import sys
from pathlib import Path

from ser_plugins.files import atomic_write

HEAD = "| strategy | corpus | fold | first weights | epochs (best) | valid acc. | accuracy | UAR | macro F1 | minutes |"


def row(metrics: dict) -> str:
    percent = [f"{100 * metrics[name]:.1f}" for name in ("valid_accuracy", "accuracy", "uar", "macro_f1")]
    epochs = f"{metrics['epochs']} ({metrics['best_epoch']})"
    names = [metrics["strategy"], metrics["corpus"], metrics["fold"], metrics["pretrained_encoder"], epochs]
    return f"| {' | '.join(map(str, [*names, *percent, round(metrics['seconds'] / 60)]))} |"


def main() -> None:
    files = sorted(file for folder in sys.argv[1:] for file in Path(folder).rglob("fold*/metrics.json"))
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    found.sort(key=lambda metrics: (metrics["corpus"] != "ravdess", metrics["strategy"], metrics["fold"]))
    table = "\n".join([HEAD, "|---" * (HEAD.count("|") - 1) + "|", *map(row, found)])
    atomic_write(Path("benchmarks/results/runs.md"), table + "\n")
    print(table)


if __name__ == "__main__":
    main()
