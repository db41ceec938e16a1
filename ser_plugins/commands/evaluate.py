"""Evaluate a model, or predictions of any system, on RAVDESS, CREMA-D or a table of your own."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ser_plugins.commands.options import add_reference_options
from ser_plugins.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "predictions",
        nargs="*",
        type=Path,
        metavar="PREDICTIONS",
        help="table with id, and predicted or one probability per emotion: one, one per fold, or a folder of them",
    )
    parser.add_argument(
        "--model",
        nargs="+",
        metavar="MODEL",
        help="instead of predictions: model folders, such as one per fold, or builtin:emotions",
    )
    add_reference_options(parser, "table")
    parser.add_argument("--data_folder", type=Path, help="audio for --model: folder of the corpus, or the table")
    parser.add_argument("--stress", action="store_true", help="also test the model on distorted recordings")
    parser.add_argument("--html", type=Path, metavar="FILE", help="page with figures to write")


def run(given: argparse.Namespace) -> None:
    """Print the measures, and write them where asked."""
    # A command imports what it alone needs.
    import json  # noqa: PLC0415

    from ser_plugins.evaluation.page import html, text  # noqa: PLC0415
    from ser_plugins.files import atomic_write  # noqa: PLC0415

    _check(given)
    result = _of_models(given) if given.model else _of_predictions(given)
    print(text(result))
    if given.json is not None:
        atomic_write(given.json, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    if given.html is not None:
        atomic_write(given.html, html(result))


def _check(given: argparse.Namespace) -> None:
    """Raise an `InputError` unless the arguments fit together."""
    if bool(given.predictions) == bool(given.model):
        raise InputError("give either PREDICTIONS or --model, a model that predicts the corpus itself")
    if given.model and (given.corpus is None or given.data_folder is None):
        raise InputError("--model needs --corpus and --data_folder, the audio that it predicts")
    if given.predictions and (given.stress or given.data_folder is not None):
        raise InputError("--stress and --data_folder go with --model; predictions need no audio")
    if given.predictions and given.corpus == "table":
        raise InputError("--corpus table goes with --model; for predictions give --labels TABLE")


def _of_predictions(given: argparse.Namespace) -> dict[str, Any]:
    from ser_plugins.commands.options import reference_of  # noqa: PLC0415
    from ser_plugins.evaluation.evaluate import evaluate  # noqa: PLC0415
    from ser_plugins.evaluation.system import read_system  # noqa: PLC0415

    reference = reference_of(given)
    return evaluate(read_system(given.predictions, reference), reference)


def _of_models(given: argparse.Namespace) -> dict[str, Any]:
    from ser_plugins.evaluation.distortions import distortions  # noqa: PLC0415
    from ser_plugins.evaluation.evaluate import evaluate  # noqa: PLC0415
    from ser_plugins.evaluation.stress import measure_stress  # noqa: PLC0415
    from ser_plugins.inference.corpus import RECORDED, babble_crowd, find_corpus, predict_corpus  # noqa: PLC0415

    corpus, missing = find_corpus(given.corpus, given.data_folder)
    found = predict_corpus(given.model, corpus, distortions(babble_crowd(corpus)) if given.stress else None)
    result = evaluate(found.systems[RECORDED], found.reference)
    result |= {"notes": [*missing, *found.notes], "models": found.checksums}
    return {**result, "stress": measure_stress(found.systems, found.reference)} if given.stress else result
