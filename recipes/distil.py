#!/usr/bin/env python3
"""Distil a teacher: python recipes/distil.py hparams/distil.yaml --teacher FOLDER [--corpus …] [--key value …]."""

import logging
from itertools import chain
from pathlib import Path

from speechbrain.utils.distributed import run_on_main

from ser_plugins.errors import disk_full_told
from ser_plugins.model_folder.saving import HYPERPARAMS
from ser_plugins.training.distillation import DistillationBrain, Student, make_loaders, trained_shards
from ser_plugins.training.recipe import Recipe, start
from ser_plugins.training.run import (
    begin,
    exclusive,
    fit,
    is_finished,
    load_pretrained,
    make_brain,
    pretrained_source,
    run_facts,
    ssl_lineage,
    tell_finished,
)
from ser_plugins.training.speakers import check_utterances, export_encoder, prepare_shards
from ser_plugins.training.teacher import compute_targets

logger = logging.getLogger(__name__)


def run(recipe: Recipe) -> Path:
    """Pack the corpus, let the teacher describe it, train, and leave ``encoder/``; return the folder of the results."""
    recipe.require("teacher", "recipes/pretrain.py or recipes/train.py")
    output = recipe.output_folder()
    if is_finished(recipe.tree, output):
        tell_finished(recipe.tree, output, output / HYPERPARAMS)
        return output
    with disk_full_told(output, recipe["cache_folder"]), exclusive(output):
        tree = {**recipe.tree, "labels": []}
        hparams = begin(tree, output)
        teacher = hparams["teacher_network"]
        teachers = [ssl_lineage(tree, teacher), teacher.load(tree["teacher"])]
        lineage, _ = load_pretrained(hparams["embedding_model"], tree)

        # Shards: tar files of prepared speech, written once. The teacher's output is stored with them.
        shards = run_on_main(prepare_shards, [recipe])
        run_on_main(check_utterances, [shards, output])
        targets = run_on_main(compute_targets, [shards, teacher, tree, recipe.options["device"]])
        scale = targets.scale(trained_shards(shards))
        student = Student(hparams["embedding_model"], len(scale.mean), len(scale.center))
        hparams |= {"trials": shards, "targets": targets, "scale": scale, "embedding_model": student}

        brain = make_brain(DistillationBrain, hparams, recipe.options, output)
        train_loader, valid_loader = make_loaders(brain, tree, shards, targets)
        best = fit(brain, train_loader, valid_loader)

        facts = {
            "teacher": ", ".join(one[-1].strategy for one in teachers if one) or tree["teacher"],
            "pretrained_encoder": pretrained_source(tree) or "none",
            **run_facts(best),
        }
        modules = {**brain.modules, "embedding_model": brain.modules["embedding_model"].encoder}
        run_on_main(export_encoder, [tree, shards, modules, best, facts, (*chain(*teachers), *lineage), output])
    return output


if __name__ == "__main__":
    recipe, folder = start(run)
    print(f"results: {folder}")
    print(f"to fine-tune it: recipes/train.py … --pretrained_encoder {folder / 'encoder'}")
