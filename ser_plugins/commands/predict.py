"""Predict the emotion of audio files.

The probabilities of the labels add up to one.
"""

from __future__ import annotations

import argparse
import os

from ser_plugins.commands import timeline
from ser_plugins.commands.options import add_batch_options, add_inference_arguments, add_labels_option, check_batches

SHOWN = ("path", "seconds", "emotion", "probability", "warning", "error")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_inference_arguments(parser)
    add_batch_options(parser)
    add_labels_option(parser)
    parser.add_argument("--unknown", type=float, default=0.0, help="answer unknown below this probability (default: 0)")
    # The old spelling of the command timeline.
    parser.add_argument("--timeline", action="store_true", help=argparse.SUPPRESS)
    timeline.add_window_options(parser, shown=False)


def run(given: argparse.Namespace) -> None:
    """Print or write the table."""
    from ser_plugins.errors import InputError  # noqa: PLC0415 — a command imports what it needs

    if given.timeline:
        if given.ray:
            raise InputError("--ray is for predict and embed; leave it out of timelines")
        if given.unknown:
            raise InputError("--unknown is for predict; leave it out of timelines")
        timeline.run(given)
        return
    if given.window is not None or given.hop is not None:
        raise InputError("predict takes no --window and --hop; use ser-plugins timeline")
    if given.segments or given.turns is not None or given.min_seconds is not None:
        raise InputError("segments are of a timeline; use ser-plugins timeline --segments")
    check_batches(given)
    if predict_one(given):
        return
    from ser_plugins.commands.tables import prepare, run_files, split_labels  # noqa: PLC0415
    from ser_plugins.inference.utterances import prediction_output  # noqa: PLC0415

    labels = split_labels(given.labels)
    if given.ray:
        from ser_plugins.commands.cluster import run_on_cluster  # noqa: PLC0415
        from ser_plugins.inference.cluster import FilePredictor  # noqa: PLC0415

        run_on_cluster(given, FilePredictor, {"labels": labels, "unknown": given.unknown})
        return
    job = prepare(given)
    output = prediction_output(job.model, labels, given.unknown)
    run_files(given, job, output, list(SHOWN), ["predict", list(output.types), given.unknown])


def predict_one(given: argparse.Namespace) -> bool:
    """Print the answer on one recording by the model's ONNX graph, without PyTorch; False where that cannot be done."""
    more = (given.output, given.labels, given.device, given.speaker, given.revision, given.ray)
    if len(given.paths) != 1 or not os.path.isfile(given.paths[0]) or given.unknown or any(more):
        return False
    from ser_plugins.commands.printing import print_model, print_table  # noqa: PLC0415
    from ser_plugins.files import readable  # noqa: PLC0415
    from ser_plugins.inference.onnx_model import open_graph  # noqa: PLC0415

    model = open_graph(given.model)
    answer = model and model.answer(given.paths[0])
    if not answer:
        return False
    print_model(given.model)
    emotion, probability = max(answer.probabilities.items(), key=lambda item: item[1])
    cells = (readable(given.paths[0]), answer.seconds, emotion, probability, answer.warning, None)
    print_table({name: [cell] for name, cell in zip(SHOWN, cells, strict=True)}, 1)
    return True
