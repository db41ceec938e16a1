#!/usr/bin/env python3
"""Pre-train on speakers, or by reconstruction: python recipes/pretrain.py hparams/pretrain.yaml [--key value …]."""

import logging
from pathlib import Path

from speechbrain.utils.distributed import run_on_main

from ser_plugins.errors import InputError, disk_full_told
from ser_plugins.model_folder.saving import HYPERPARAMS
from ser_plugins.training import reconstruction
from ser_plugins.training.brain import EncoderBrain
from ser_plugins.training.recipe import Recipe, start
from ser_plugins.training.reconstruction import AutoEncoder, ReconstructionBrain
from ser_plugins.training.run import (
    begin,
    exclusive,
    fit,
    is_finished,
    load_pretrained,
    make_brain,
    pretrained_source,
    run_facts,
    tell_finished,
)
from ser_plugins.training.speakers import SpeakerBrain, check_utterances, export_encoder, make_loaders, prepare_shards

logger = logging.getLogger(__name__)


def run(recipe: Recipe) -> Path:
    """Pack the corpus, train, and leave ``encoder/``; return the folder of the results."""
    recipe.require("shards_folder", "recipes/train.py")
    if "teacher" in recipe.tree:
        raise InputError("this YAML is not for this recipe; give it to recipes/distil.py")
    if recipe["speaker_normalization"] != "none":
        raise InputError("speaker normalisation removes what identifies a speaker; give it to recipes/train.py")
    output = recipe.output_folder()
    if is_finished(recipe.tree, output):
        tell_finished(recipe.tree, output, output / HYPERPARAMS)
        return output
    with disk_full_told(output, recipe["cache_folder"]), exclusive(output):
        # Shards: tar files of prepared speech, written once.
        shards = run_on_main(prepare_shards, [recipe])
        run_on_main(check_utterances, [shards, output])
        reconstructs = recipe["reconstruction_loss"] is not None
        tree = {**recipe.tree, "labels": [] if reconstructs else shards.speakers}
        hparams = {**begin(tree, output), "trials": shards}
        lineage, _ = load_pretrained(hparams["embedding_model"], tree)

        brain: EncoderBrain
        if reconstructs:
            hparams["embedding_model"] = AutoEncoder(hparams["embedding_model"])
            brain = make_brain(ReconstructionBrain, hparams, recipe.options, output)
            loaders = reconstruction.make_loaders(brain, tree, shards)
        else:
            brain = make_brain(SpeakerBrain, hparams, recipe.options, output)
            loaders = make_loaders(brain, tree, shards)
        best = fit(brain, *loaders)

        facts = {"pretrained_encoder": pretrained_source(tree) or "none", **run_facts(best)}
        encoder = brain.modules["embedding_model"]
        modules = {**brain.modules, "embedding_model": encoder.encoder if reconstructs else encoder}
        run_on_main(export_encoder, [tree, shards, modules, best, facts, lineage, output])
    return output


if __name__ == "__main__":
    recipe, folder = start(run)
    print(f"results: {folder}")
    print(f"to fine-tune it: recipes/train.py … --pretrained_encoder {folder / 'encoder'}")
