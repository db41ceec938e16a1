#!/usr/bin/env python3
"""Every table and figure of the paper: python recipes/experiments.py COMMAND …."""

import argparse
import logging
import os
import re
import sys
from functools import partial
from pathlib import Path

from ser_plugins.errors import InputError
from ser_plugins.evaluation.protocol import UTTERANCES
from ser_plugins.experiments.across import predict_across
from ser_plugins.experiments.enrolment import record_enrolment
from ser_plugins.experiments.ensemble import ensemble_table
from ser_plugins.experiments.gallery import draw_figures
from ser_plugins.experiments.jobs import Job, make_ready, plan, run_jobs
from ser_plugins.experiments.leaderboard import write_leaderboard
from ser_plugins.experiments.page import write_report
from ser_plugins.experiments.published import write_table
from ser_plugins.experiments.records import record
from ser_plugins.experiments.runs import NUMBER, read_experiments
from ser_plugins.experiments.summary import write_results

RECIPES = Path(os.path.relpath(Path(__file__).parent))
ROOT = RECIPES.parent
HPARAMS = ROOT / "hparams"
RECORDS = ROOT / "results_records"
LEADERBOARD = ROOT / "docs" / "leaderboard.md"
STRATEGIES = {"table2": "s1,s2,s3,s4,s5", "table3": "bhavan,issa,kumar,ghaleb,huang,s5", "sweep": "s5"}


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    given, options = parse(sys.argv[1:])
    try:
        failed = given.command(given, options)
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on")
    if failed:
        sys.exit("\n".join([f"error: {len(failed)} of the runs failed; the same command tries them again", *failed]))


def parse(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description="Every table and figure of the paper, from runs of recipes/train.py.")
    commands = parser.add_subparsers(
        required=True, metavar="table2|table3|sweep|ensemble|figures|report|record|across|enrolment|results|leaderboard"
    )
    options = "; all other options are those of recipes/train.py"
    for name, command, about in [
        ("table2", partial(table, 2), f"train strategies on folds, what is missing, and write Table 2{options}"),
        ("table3", partial(table, 3), f"the same with the paper's competitors and S5, for Table 3{options}"),
        ("sweep", sweep, f"train strategies with each value of a setting{options}"),
        ("ensemble", ensemble, "measure the mean of several experiments' probabilities, beside each of them"),
        ("figures", figures, "draw confusion matrices, embeddings and sweeps of the results in a folder"),
        ("report", report, "write report.html and report.md of the results in a folder, figures included"),
        ("record", keep, "keep metrics and predictions of experiments in results_records/"),
        ("across", across, "predict RAVDESS by models of CREMA-D and the reverse, and keep it in results_records/"),
        ("enrolment", enrolment, "measure the enrolment of each test speaker, and keep it in results_records/"),
        ("results", results, "write RESULTS.md, the README's table and the leaderboard from results_records/"),
        ("leaderboard", leaderboard, "check the predictions and cards in results_records/, and write the leaderboard"),
    ]:
        one = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
        one.set_defaults(command=command)
        if name in {"results", "leaderboard"}:
            continue
        if name in {"ensemble", "record", "across", "enrolment"}:
            one.add_argument("folders", type=Path, nargs="+", help="results/<strategy>/<corpus>/<seed>")
            for corpus in UTTERANCES if name == "across" else ():
                one.add_argument(f"--{corpus}", type=Path, default=Path("data") / corpus, help="audio (%(default)s)")
            continue
        if name in {"figures", "report"}:
            one.add_argument("results", type=Path, help="folder of the results")
            continue
        if name == "sweep":
            one.add_argument("grid", type=grid, help="KEY=VALUE,VALUE,… as clusters=4,6,8,10")
        one.add_argument("--strategies", "--strategy", default=STRATEGIES[name], help="files of hparams/ (%(default)s)")
        one.add_argument("--folds", "--fold", default="all", help="as 1,2,3 (%(default)s)")
        one.add_argument("--results", "--output_folder", type=Path, default=Path("results"), help="(%(default)s)")
        one.add_argument("--jobs", type=int, default=1, help="runs at a time (%(default)s)")
    given, rest = parser.parse_known_args(words)
    if rest and given.command in {ensemble, figures, report, keep, across, enrolment, results, leaderboard}:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    return given, rest


def grid(text: str) -> tuple[str, list[str]]:
    key, _, values = text.partition("=")
    numbers = list(dict.fromkeys(value.strip() for value in values.split(",")))
    if not re.fullmatch(r"\w+", key) or not all(re.fullmatch(NUMBER, number) for number in numbers):
        raise argparse.ArgumentTypeError(f"{text}: give a key and numbers, as clusters=4,6,8,10")
    return key, numbers


def table(number: int, given: argparse.Namespace, options: list[str]) -> list[str]:
    failed = train(plan(strategies(given), given.folds, options, given.results), given)
    try:
        print(write_table(given.results, number).read_text(encoding="utf-8"))
    except InputError:  # of nothing there is no table: why, is told
        if not failed:
            raise
    return failed


def sweep(given: argparse.Namespace, options: list[str]) -> list[str]:
    key, values = given.grid
    jobs: list[Job] = []
    for value in values:
        folder = given.results / "sweeps" / key / value
        jobs += plan(strategies(given), given.folds, [*options, f"--{key}", value], folder)
    failed = train(jobs, given)
    if len(failed) < len(jobs) or not jobs:
        print(f"next: python recipes/experiments.py figures {given.results}")
    return failed


def ensemble(given: argparse.Namespace, _: list[str]) -> list[str]:
    print(ensemble_table([one for folder in given.folders for one in read_experiments(folder)]).markdown())
    return []


def figures(given: argparse.Namespace, _: list[str]) -> list[str]:
    for picture in draw_figures(given.results):
        print(f"{picture.path}: {picture.caption}")
    return []


def report(given: argparse.Namespace, _: list[str]) -> list[str]:
    print(write_report(given.results))
    return []


def keep(given: argparse.Namespace, _: list[str]) -> list[str]:
    for folder in given.folders:
        print(record(folder, RECORDS))
    return []


def across(given: argparse.Namespace, _: list[str]) -> list[str]:
    experiments = [one for folder in given.folders for one in read_experiments(folder)]
    print(*predict_across(experiments, {name: getattr(given, name) for name in UTTERANCES}, RECORDS), sep="\n")
    return []


def enrolment(given: argparse.Namespace, _: list[str]) -> list[str]:
    experiments = [one for folder in given.folders for one in read_experiments(folder)]
    print(*(record_enrolment(one, RECORDS) for one in experiments), sep="\n")
    return []


def results(*_: object) -> list[str]:
    files = [ROOT / name for name in ("RESULTS.md", "README.md", "docs/paper.md")]
    write_results(RECORDS, *files)
    print(*files, sep=", ")
    return leaderboard()


def leaderboard(*_: object) -> list[str]:
    print(write_leaderboard(RECORDS, LEADERBOARD))
    return []


def strategies(given: argparse.Namespace) -> list[Path]:
    return [HPARAMS / f"{name}.yaml" for name in dict.fromkeys(given.strategies.split(","))]


def train(jobs: list[Job], given: argparse.Namespace) -> list[str]:
    make_ready(jobs)
    print(f"{len(jobs)} runs to do; each prints to a log beside its folder in {given.results}", flush=True)
    return run_jobs(jobs, RECIPES / "train.py", max(given.jobs, 1))


if __name__ == "__main__":
    main()
