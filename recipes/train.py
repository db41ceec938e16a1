#!/usr/bin/env python3
"""Train and evaluate a strategy: python recipes/train.py hparams/s5.yaml [--corpus …] [--key value …]."""

from pathlib import Path

from speechbrain.utils.distributed import run_on_main
from torch import Tensor, nn

from ser_plugins.configuration import Tree
from ser_plugins.corpora.corpus import Corpus
from ser_plugins.corpora.folds import fold_parts
from ser_plugins.errors import disk_full_told
from ser_plugins.evaluation.tables import summarise
from ser_plugins.model_folder.lineage import Lineage
from ser_plugins.training.brain import EncoderBrain
from ser_plugins.training.cross_validation import (
    Parts,
    check_folds,
    embed_parts,
    evaluate_fold,
    export_fold,
    fold_tree,
    make_loaders,
    missing_folds,
    prepare_corpus,
    write_division,
)
from ser_plugins.training.frozen import freeze, thaw
from ser_plugins.training.progress import Progress
from ser_plugins.training.recipe import Recipe, start
from ser_plugins.training.run import (
    begin,
    exclusive,
    fit,
    initial_weights,
    is_finished,
    load_pretrained,
    make_brain,
    run_facts,
)


def run(recipe: Recipe) -> Path:
    """Train and evaluate the folds that are missing; return the folder of the results."""
    recipe.require("n_folds", "recipes/pretrain.py")
    output = recipe.output_folder()
    folds = missing_folds(recipe, output)
    with disk_full_told(output, recipe["cache_folder"]):
        if folds:
            # The corpus: one row an utterance, with path, speaker and emotion.
            corpus = run_on_main(recipe.read_corpus)
            check_folds(recipe, corpus, folds)
            run_on_main(write_division, [corpus, recipe["n_folds"], recipe["split"], output])
            # The audio: mono, 16 kHz, without silence; kept in the cache folder.
            corpus = run_on_main(prepare_corpus, [recipe, corpus])
        with Progress(recipe, folds) as progress:
            for fold in folds:
                with exclusive(output / f"fold{fold}"):
                    train_fold(recipe, corpus, fold, output / f"fold{fold}", progress)
        if recipe["fold"] == "all":
            run_on_main(summarise, [output])
    return output


def train_fold(recipe: Recipe, corpus: Corpus, fold: int, folder: Path, progress: Progress) -> None:
    """Train, evaluate and export one fold, unless another process has finished it since the run began."""
    if is_finished({**recipe.tree, "fold": fold}, folder):
        return
    parts = fold_parts(corpus, fold, recipe["n_folds"], recipe["split"])  # train, valid, test
    tree = fold_tree(recipe.tree, corpus, parts, fold)
    hparams = begin(tree, folder)
    progress.watch(fold, hparams)
    lineage, transferred = load_pretrained(hparams["embedding_model"], tree)
    sources = initial_weights(tree, hparams["embedding_model"], transferred)
    replaced = freeze(hparams, tree)  # only where freeze_backbone says so

    brain = make_brain(EncoderBrain, hparams, recipe.options, folder)
    train_loader, valid_loader = make_loaders(brain, hparams, parts)
    best = fit(brain, train_loader, valid_loader)

    facts = {
        "pretrained_encoder": sources,
        "transferred": {kind: len(names) for kind, names in transferred.items()},
        **({"valid_accuracy": best["accuracy"]} if "accuracy" in best else {}),
        "precision": tree["precision"],
        **run_facts(best),
    }
    embeddings = embed_parts(brain, parts, corpus.labels, hparams["fit_passes"])
    thaw(brain.modules, replaced)
    run_on_main(finish_fold, [tree, corpus, parts, brain.modules, embeddings, facts, lineage, folder])


def finish_fold(
    tree: Tree,
    corpus: Corpus,
    parts: Parts,
    modules: nn.ModuleDict,
    embeddings: dict[str, Tensor],
    facts: dict[str, object],
    lineage: Lineage,
    folder: Path,
) -> None:
    """Evaluate on the test part, and leave metrics, predictions and a model folder."""
    metrics = evaluate_fold(tree, corpus, parts, modules.classifier, embeddings, facts, folder)
    export_fold(tree, corpus, parts, modules, embeddings, metrics, lineage, folder)


if __name__ == "__main__":
    recipe, folder = start(run)
    print(f"results: {folder}")
    if recipe["corpus"] == "synthetic":
        print("The corpus is synthetic. For real speech, add --corpus ravdess --data_folder FOLDER --download true")
