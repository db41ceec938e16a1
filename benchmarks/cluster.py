"""Files a second of a Ray cluster with one worker and with two, and what a million hours would take.

python benchmarks/cluster.py FOLDER embeds up to 480 sound files of FOLDER by builtin:emotions, on clusters of one and
of two nodes with a core each, all on this machine. It writes benchmarks/results/cluster.json and cluster.md. The rates
leave out the start of the workers. Core-hours are processor time of one process without Ray, the median of three
measurements. The rest is extrapolated from it under the assumptions of the table.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet
import torch
from speed.harness import machine

from ser_plugins.files import atomic_write
from ser_plugins.inference.cluster import FileEmbedder, connect, plan_parts, write_parts
from ser_plugins.inference.files import find_files
from ser_plugins.model_folder.source import EMOTIONS
from ser_plugins.training.run import commit

FILES, PART = 480, 8
RESULTS = Path("benchmarks/results")
HOURS = 1_000_000
ASSUMPTIONS = {
    "cores a node": 64,
    "days": 7,
    "price of a core-hour, US dollars": 0.04,
    "seconds an utterance": 5.0,
    "bytes a second of audio, FLAC of 16 kHz": 16_000,
}


def rate(nodes: int, files: list[str]) -> float:
    """Measure files a second, from the first part of each worker to the last of all."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(nodes - 1):
        cluster.add_node(num_cpus=1)
    connect(cluster.address)
    with tempfile.TemporaryDirectory() as folder:
        parts, times = plan_parts(files, PART), []
        for _ in write_parts(parts, partial(FileEmbedder, EMOTIONS, device="cpu"), Path(folder)):
            times.append(time.perf_counter())
    ray.shutdown()
    cluster.shutdown()
    begun = 2 * nodes  # parts until all workers run
    return PART * (len(times) - begun) / (times[-1] - times[begun - 1])


def measure(files: list[str]) -> dict[str, float]:
    """Measure one process, then the clusters."""
    embed = FileEmbedder(EMOTIONS, device="cpu")
    embed({"path": files[:8]})
    times = []
    for _ in range(3):
        start = time.process_time()
        table = embed({"path": files})
        times.append(time.process_time() - start)
    seconds = statistics.median(times)
    hours = sum(table["seconds"].to_pylist()) / 3600
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, use_dictionary=False)
    found = {
        "files": len(files),
        "seconds a file": 3600 * hours / len(files),
        "files a second, one worker": rate(1, files),
        "files a second, two workers": rate(2, files),
        "core-hours an hour of audio": seconds / 3600 / hours,
        "bytes a row of embeddings": sink.getvalue().size / len(files),
        "load of the machine, of other programs as well": os.getloadavg()[0],
    }
    return {name: float(f"{value:.3g}") for name, value in found.items()}


def extrapolate(found: dict[str, float]) -> dict[str, float]:
    """Compute what `HOURS` take."""
    core_hours = HOURS * found["core-hours an hour of audio"]
    rows = HOURS * 3600 / ASSUMPTIONS["seconds an utterance"]
    return {
        "core-hours": core_hours,
        "nodes, for so many days": core_hours / (ASSUMPTIONS["cores a node"] * ASSUMPTIONS["days"] * 24),
        "US dollars": core_hours * ASSUMPTIONS["price of a core-hour, US dollars"],
        "TB of audio": HOURS * 3600 * ASSUMPTIONS["bytes a second of audio, FLAC of 16 kHz"] / 1e12,
        "TB of embeddings": rows * found["bytes a row of embeddings"] / 1e12,
        "parts of 256 files": rows / 256,
    }


def page(record: dict[str, Any]) -> str:
    """Write the record as Markdown."""
    text = ""
    for title, name in (("measured", "measured"), ("assumed", "assumed"), ("a million hours", "extrapolated")):
        rows = [
            f"| {key} | {value:,.3g} |" if value < 1000 else f"| {key} | {float(f'{value:.2g}'):,.0f} |"
            for key, value in record[name].items()
        ]
        text += "\n".join([f"| {title} | |", "|---|---|", *rows]) + "\n\n"
    facts = {name: value for name, value in record["machine"].items() if name != "versions"}
    return text + "; ".join(f"{name}: {value}" for name, value in facts.items()) + ".\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of sound files")
    files = find_files([parser.parse_args().folder.absolute()])
    torch.set_num_threads(1)
    found = measure(files[:: max(1, len(files) // FILES)][:FILES])
    record = {
        "machine": {**machine(), "commit": commit(), "command": "python benchmarks/cluster.py FOLDER"},
        "measured": found,
        "assumed": ASSUMPTIONS,
        "extrapolated": {name: float(f"{value:.3g}") for name, value in extrapolate(found).items()},
    }
    atomic_write(RESULTS / "cluster.json", json.dumps(record, indent=2) + "\n")
    atomic_write(RESULTS / "cluster.md", page(record))
    print(page(record))


if __name__ == "__main__":
    main()
