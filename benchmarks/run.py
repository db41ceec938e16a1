"""Speed, side by side: python benchmarks/run.py [NAME …] [--threads N] [--corpus … --data_folder …].

Each case times ours and another way to the same end in turn, in one process, after a call that does not count, and
tells the ratio of the medians; results are compared first. Cases that need recordings take those of the corpus that is
given, else the built-in one. Writes benchmarks/results/speed.md and speed.json; cases that are not named keep the rows
that they have.
"""

import argparse
import dataclasses
import importlib
import json
import logging
import sys
from pathlib import Path
from typing import Any

import torch
from ser_plugins.training.fit import commit
from speed import corpus
from speed.harness import Row, command, machine

from ser_plugins.files import atomic_write
from ser_plugins.memory import keep_memory

CASES = (
    "step",
    "pooling",
    "mining",
    "svm",
    "preparation",
    "epoch",
    "folds",
    "memory",
    "growth",
    "inference",
    "latency",
    "gpu",
)
ON_DEVICE = ("epoch", "memory")  # cases that take --device; gpu takes a GPU in any case
RESULTS = Path("benchmarks/results")


def table(rows: list[Row]) -> str:
    """Write the rows as Markdown."""
    lines = ["| | ours | other | ratio | mark | |", "|---|---|---|---|---|---|"]
    words = {True: "met", False: "missed", None: ""}
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        lines.append(f"| {row.case} | {row.ours} | {row.other} | {ratio} | {row.mark} | {words[row.met]} |")
    return "\n".join(lines)


def describe(facts: dict[str, Any]) -> str:
    """Write what was measured on."""
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    others = "; ".join(f"{name}: {value}" for name, value in facts.items() if name != "versions")
    return f"{others}; {versions}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)}; all where none is given")
    parser.add_argument("--threads", type=int, default=1)
    given, corpus.arguments = parser.parse_known_args()
    unknown = sorted(set(given.names) - set(CASES))
    if unknown:
        parser.error(f"unknown case {unknown[0]}; there are {', '.join(CASES)}")
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(given.threads)
    keep_memory()  # as the recipes do
    file = RESULTS / "speed.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    for name in given.names or CASES:
        print(f"{name} …", flush=True)
        rows = list(importlib.import_module(f"speed.{name}").run())
        if not rows:  # there is no GPU
            continue
        print(table(rows), flush=True)
        used = name == "gpu" or (name in ON_DEVICE and corpus.on_gpu())
        gpu = {"GPU": torch.cuda.get_device_name()} if used else {}
        facts = {**gpu, **machine(), "commit": commit(), "command": command(sys.argv)}
        key = f"{name} on a GPU" if gpu and name != "gpu" else name
        found[key] = {"machine": facts, "rows": [dataclasses.asdict(row) for row in rows]}
        text = "\n\n".join(
            f"## {name}\n\n{table([Row(**row) for row in found[name]['rows']])}\n\n{describe(found[name]['machine'])}"
            for name in (key for case in CASES for key in (case, f"{case} on a GPU"))
            if name in found
        )
        atomic_write(file, json.dumps(found, indent=2) + "\n")
        atomic_write(RESULTS / "speed.md", f"# Speed\n\n{text}\n")


if __name__ == "__main__":
    main()
