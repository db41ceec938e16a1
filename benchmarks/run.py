"""Measure speed side by side: python benchmarks/run.py [NAME …] [--threads N] [--corpus … --data_folder …].

Each case times two ways to the same result in turn, in one process, after one call that does not count. It reports the
ratio of the medians. Cases that need recordings read the given corpus, or the built-in one. The rows are written to
benchmarks/results/speed.md and speed.json; rows of other cases are kept.
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
from speed import corpus
from speed.harness import Row, command, machine

from ser_plugins.files import atomic_write
from ser_plugins.memory import keep_memory
from ser_plugins.training.run import commit

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
    "command",
    "gpu",
)
ON_DEVICE = ("epoch", "memory")  # cases that take --device; gpu needs a GPU in any case
RESULTS = Path("benchmarks/results")


def table(rows: list[Row]) -> str:
    """Write the rows as Markdown."""
    lines = ["| | ours | other | ratio | target | |", "|---|---|---|---|---|---|"]
    words = {True: "met", False: "missed", None: ""}
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        lines.append(f"| {row.case} | {row.ours} | {row.other} | {ratio} | {row.target} | {words[row.met]} |")
    return "\n".join(lines)


def describe(facts: dict[str, Any]) -> str:
    """Write the facts of a measurement as a table."""
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    lines = [f"| {name} | {versions if name == 'versions' else value} |" for name, value in facts.items()]
    return "\n".join(["| machine | |", "|---|---|", *lines])


def page(found: dict[str, Any]) -> str:
    """Write all results as Markdown, in the order of the cases."""
    text = "# Speed\n"
    for name in (key for case in CASES for key in (case, f"{case} on a GPU") if key in found):
        rows = [Row(**row) for row in found[name]["rows"]]
        text += f"\n## {name}\n\n{table(rows)}\n\n{describe(found[name]['machine'])}\n"
    return text


def record(name: str, rows: list[Row]) -> None:
    """Add the rows of a case to the results."""
    file = RESULTS / "speed.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    on_gpu = name == "gpu" or (name in ON_DEVICE and corpus.on_gpu())
    gpu = {"GPU": torch.cuda.get_device_name()} if on_gpu else {}
    facts = {**gpu, **machine(), "commit": commit(), "command": command(sys.argv)}
    key = f"{name} on a GPU" if on_gpu and name != "gpu" else name
    found[key] = {"machine": facts, "rows": [dataclasses.asdict(row) for row in rows]}
    atomic_write(file, json.dumps(found, indent=2) + "\n")
    atomic_write(RESULTS / "speed.md", page(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)}; all cases if none is given")
    parser.add_argument("--threads", type=int, default=1)
    given, corpus.arguments = parser.parse_known_args()
    unknown = sorted(set(given.names) - set(CASES))
    if unknown:
        parser.error(f"unknown case {unknown[0]}; the cases are {', '.join(CASES)}")
    logging.disable(logging.INFO)  # of SpeechBrain
    torch.set_num_threads(given.threads)
    keep_memory()  # as the recipes do
    for name in given.names or CASES:
        print(f"{name} …", flush=True)
        rows = list(importlib.import_module(f"speed.{name}").run())
        if rows:
            print(table(rows), flush=True)
            record(name, rows)
        else:
            print("skipped: there is no GPU", flush=True)


if __name__ == "__main__":
    main()
