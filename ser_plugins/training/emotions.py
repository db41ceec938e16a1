"""Training and evaluation of a strategy, fold by fold of a corpus."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from speechbrain.dataio.dataloader import SaveableDataLoader
from speechbrain.utils.distributed import run_on_main
from torch import Tensor

from ser_plugins import configuration
from ser_plugins.corpora.corpus import Corpus
from ser_plugins.corpora.folds import fold_parts, folds_table, write_folds
from ser_plugins.corpora.prepared import prepare
from ser_plugins.errors import InputError, disk_full_told
from ser_plugins.evaluation.figures import confusion_figure
from ser_plugins.evaluation.measures import measure, measure_each
from ser_plugins.evaluation.tables import summarise
from ser_plugins.files import atomic_path, atomic_write
from ser_plugins.metric.sampler import BalancedBatchSampler
from ser_plugins.model_folder.embedding_map import EmbeddingMap
from ser_plugins.model_folder.saving import CHECKPOINT, HYPERPARAMS, inference_yaml, save_model_folder, self_contained
from ser_plugins.models.ssl import describe
from ser_plugins.training.brain import EncoderBrain
from ser_plugins.training.data import by_length, make_loader, with_voices
from ser_plugins.training.evaluation import embed, predictions
from ser_plugins.training.fit import (
    Hparams,
    alone_in,
    check_hyperparams,
    finish,
    has_learnt,
    is_finished,
    run_facts,
    train,
)
from ser_plugins.training.lineage import OWN_SPEAKERS, RANDOM
from ser_plugins.training.recipe import Recipe
from ser_plugins.training.transfer import check_unheard, locate

logger = logging.getLogger(__name__)
Parts = dict[str, pd.DataFrame]
EVALUATED = 4  # mini-batches that a GPU evaluates at once, by a network that waits for launches more than for sums
REFERENCES = 16  # training utterances of a class whose centroid stands for it in validation


def run(recipe: Recipe) -> Path:
    """Train and evaluate what is missing; return the folder of the results."""
    recipe.require("fold", "recipes/pretrain.py")
    output = recipe.output_folder()
    missing = missing_folds(recipe, output)
    if not missing:
        logger.info("%s is finished; delete it, or give another --output_folder or --seed, to train anew", output)
    with disk_full_told(output, recipe.tree["cache_folder"]):
        run_folds(recipe, missing, output)
        if recipe.tree["fold"] == "all":
            run_on_main(summarise, [output])
    return output


def missing_folds(recipe: Recipe, output: Path) -> list[int]:
    """List the folds that a run is asked for and that are not finished."""
    return [fold for fold in recipe.folds() if not is_finished({**recipe.tree, "fold": fold}, output / f"fold{fold}")]


def run_folds(recipe: Recipe, folds: Sequence[int], output: Path) -> None:
    """Read the corpus, prepare its audio, and train and evaluate folds of it."""
    if not folds:
        return
    n_folds = recipe.tree["n_folds"]
    corpus = run_on_main(recipe.read_corpus)
    check_strategy(recipe.tree, corpus)
    for fold in folds:  # what is wrong with one is told before the audio is prepared
        check_fold(recipe.tree, corpus, fold)
    run_on_main(describe_corpus, [corpus, n_folds, output])
    corpus = run_on_main(prepare_corpus, [recipe, corpus])
    for fold in folds:
        logger.info("%s, %s, fold %d of %s", recipe.tree["strategy"], corpus.name, fold, n_folds)
        folder = output / f"fold{fold}"
        with alone_in(folder):
            run_fold(recipe, corpus, fold_parts(corpus, fold, n_folds), fold, folder)


def describe_corpus(corpus: Corpus, n_folds: int, output: Path) -> None:
    """Write ``folds.csv`` and ``faults.csv``, but not where others have learnt something."""
    folds = output / "folds.csv"
    begun = any(has_learnt(file.parent) for file in output.glob(f"fold*/**/{HYPERPARAMS}"))
    if begun and folds.is_file() and folds.read_bytes() != folds_table(corpus, n_folds):
        raise InputError(
            f"{output} holds folds of other utterances, or divided otherwise; delete it, or give another "
            "--output_folder or the corpus as it was"
        )
    write_folds(corpus, folds, n_folds)
    atomic_write(output / "faults.csv", corpus.faults.to_csv(index=False, lineterminator="\n"))


def check_strategy(tree: Mapping[str, Any], corpus: Corpus) -> None:
    """Stop before any work where a strategy's first weights are missing, or its parts exclude each other."""
    if "ssl_source" in tree:
        describe(str(tree["ssl_source"]))
    if tree["multi_stage"] and tree["pretrained_encoder"] is None and not corpus.synthetic:
        raise InputError(
            f"{tree['strategy']} starts from a pre-trained encoder: give --pretrained_encoder FOLDER|USER/NAME, "
            "or none to train from scratch"
        )
    if tree["mixup"] and tree["speaker_centred"]:
        raise InputError("mixup mixes speakers, whom speaker_centred tells apart; leave one of them out")


def check_fold(tree: Mapping[str, Any], corpus: Corpus, fold: int) -> None:
    """Stop where an emotion has no utterance to be learnt from, or the first weights know what is held out."""
    parts = fold_parts(corpus, fold, tree["n_folds"])
    heard = set(parts["train"]["emotion"])
    if missing := [label for label in corpus.labels if label not in heard]:
        raise InputError(
            f"corpus {corpus.name}, fold {fold}: nobody who is trained on says anything {missing[0]}; leave that "
            "emotion's utterances out, or add some of other speakers"
        )
    if (source := given_encoder(tree, fold)) is not None:
        held_out = pd.concat([parts["valid"], parts["test"]])[["id", "speaker"]]
        check_unheard(locate(source), held_out if corpus.corpora else f"{corpus.name}-" + held_out)


def given_encoder(tree: Mapping[str, Any], fold: int) -> str | None:
    """The encoder that is given as a fold's first weights, if one is; ``{fold}`` stands for the fold's number."""
    source = tree["pretrained_encoder"] if tree["multi_stage"] else None
    return None if source in {None, RANDOM} else str(source).replace("{fold}", str(fold))


def prepare_corpus(recipe: Recipe, corpus: Corpus) -> Corpus:
    """Prepare the audio: a column ``prepared``, and ``voice`` where spectrograms are normalised by speaker."""
    done = prepare([str(path) for path in corpus.table["path"]], recipe.normalizer(), recipe.tree["cache_folder"])
    table = corpus.table.assign(prepared=list(map(str, done)))
    compute_features, norm = recipe.front_end()
    if getattr(norm, "axis", None) == "speaker":
        table = with_voices(table, compute_features)
    return replace(corpus, table=table)


def run_fold(recipe: Recipe, corpus: Corpus, parts: Parts, fold: int, folder: Path) -> None:
    """Train, evaluate and export one fold."""
    shares = parts["train"]["emotion"].value_counts(normalize=True)
    prior = [float(shares.get(label, 0.0)) for label in corpus.labels]
    tree = {**recipe.tree, "labels": list(corpus.labels), "prior": prior, "fold": fold}
    source, origin = encoder_source(recipe, tree, parts["train"], folder)
    loaders = partial(make_loaders, parts=parts)
    brain, report = train(tree, recipe.options, folder, source, EncoderBrain, loaders)
    transferred = {kind: len(names) for kind, names in report.items()}
    about = {"pretrained_encoder": origin, "transferred": transferred}
    run_on_main(finish_fold, [recipe, tree, corpus, parts, brain, about, folder])


def finish_fold(
    recipe: Recipe,
    tree: configuration.Tree,
    corpus: Corpus,
    parts: Parts,
    brain: EncoderBrain,
    about: Mapping[str, Any],
    folder: Path,
) -> None:
    """Evaluate and export; ``metrics.json`` is written last, and means that all else is there."""
    labels = corpus.labels
    trained = embed(brain, parts["train"], labels)
    fit_classifier(brain, trained, parts, labels)
    classifier = brain.modules.classifier.eval()
    embeddings = embed(brain, parts["test"], labels)
    with torch.no_grad():
        scores = classifier(embeddings.to(brain.device)).cpu()
    frame = predictions(parts["test"], scores, labels, corpus.corpora)
    metrics = {
        "strategy": tree["strategy"],
        "corpus": corpus.name,
        "synthetic": corpus.synthetic,
        "licence": corpus.licence,
        "fold": tree["fold"],
        "seed": tree["seed"],
        "labels": list(labels),
        "told_speakers": "voice" in parts["test"] or brain.centred,
        **{f"n_{name}": len(table) for name, table in parts.items()},
        **measure(frame, labels),
        **({"corpora": measure_each(frame, corpus.corpora)} if corpus.corpora else {}),
        **about,
        **run_facts(brain),
        "valid_accuracy": brain.best["accuracy"],
        "manifest_sha256": corpus.checksum(),
    }
    with atomic_path(folder / "predictions.csv") as part:
        frame.to_csv(part, index=False)
    with atomic_path(folder / "embeddings.npz") as part:
        np.savez(part, id=frame["id"].to_numpy(str), embedding=embeddings.squeeze(1).numpy())
    note = " (synthetic audio)" if corpus.synthetic else ""
    name = f"{tree['strategy']}, {corpus.name}{note}, fold {tree['fold']}"
    title = f"{name}: {100 * metrics['accuracy']:.1f} %"
    confusion_figure(metrics["confusion"], labels, title, folder / "confusion.png")
    used = self_contained(configuration.resolve(tree), brain.modules.embedding_model)
    yaml = inference_yaml(used, recipe.folder / "inference.yaml")
    comment = f"# {name}, seed {tree['seed']}\n"
    save_model_folder(folder / "model", comment + yaml, brain.modules.embedding_model, classifier, labels)
    EmbeddingMap.fit(trained.squeeze(1).numpy(), parts["train"]["emotion"]).save(folder / "model")
    finish(folder, metrics)
    logger.info("%s; %s", title, folder)
    for one, measured in metrics.get("corpora", {}).items():
        logger.info("of it %s: %.1f %%", one, 100 * measured["accuracy"])


def encoder_source(
    recipe: Recipe, tree: Mapping[str, Any], train_table: pd.DataFrame, folder: Path
) -> tuple[str | None, str]:
    """Where the encoder's first weights come from, and how to call it in the metrics."""
    if (given := given_encoder(tree, tree["fold"])) is not None:
        return given, given
    if not tree["multi_stage"] or tree["pretrained_encoder"] == RANDOM:
        return None, str(tree.get("ssl_source", RANDOM))
    return str(speaker_stage(recipe, tree, train_table, folder / "speakers")), OWN_SPEAKERS


def speaker_stage(recipe: Recipe, tree: Mapping[str, Any], table: pd.DataFrame, folder: Path) -> Path:
    """Train the encoder to identify the speakers of the training part: multi-stage training, in small."""
    encoder = folder / "encoder"
    base = configuration.read(recipe.folder / "s1.yaml")
    stage = {
        **tree,
        "column": "speaker",
        "labels": list(dict.fromkeys(table["speaker"])),
        "classifier": base["classifier"],
        "classification_loss": base["classification_loss"],
        "metric_loss": None,
        "speaker_centred": False,
        "number_of_epochs": tree["speaker_epochs"],
        "backbone_lr_factor": 1.0,
        "frozen_epochs": 0,
    }
    check_hyperparams(stage, folder)
    if not (encoder / CHECKPOINT).is_file():
        logger.info("speaker identification on the training part first")
        held_out = table.groupby("speaker", sort=False).cumcount() % 10 == 9
        parts = {"train": table[~held_out], "valid": table[held_out]}
        brain, _ = train(stage, recipe.options, folder, None, EncoderBrain, partial(make_loaders, parts=parts))
        run_on_main(save_encoder, [brain, encoder])
        logger.info("speaker accuracy on held-out utterances: %.1f %%", 100 * brain.best["accuracy"])
    return encoder


def save_encoder(brain: EncoderBrain, folder: Path) -> None:
    """Keep the encoder, and drop the checkpoints that it was trained with."""
    with atomic_path(folder / CHECKPOINT) as part:
        torch.save(brain.modules.embedding_model.state_dict(), part)
    shutil.rmtree(folder.parent / "save", ignore_errors=True)


def make_loaders(brain: EncoderBrain, hparams: Hparams, parts: Parts) -> tuple[SaveableDataLoader, SaveableDataLoader]:
    """Balanced random crops for training, whole utterances by length for validation."""
    column, classes = hparams["column"], list(hparams["labels"])
    indices = [classes.index(name) for name in parts["train"][column]]
    speakers = list(parts["train"]["speaker"]) if brain.centred else None
    batches = BalancedBatchSampler(indices, int(hparams["batch_size"]), seed=int(hparams["seed"]), speakers=speakers)
    brain.train_batches = batches
    make = partial(make_loader, column=column, classes=classes, device=brain.device)
    small = brain.device_type == "cuda" and getattr(brain.modules.embedding_model, "capturable", False)
    evaluated = batches.batch_size * (EVALUATED if small else 1)
    train_loader = make(parts["train"], crop_seconds=hparams["crop_seconds"], batch_sampler=batches)
    brain.checkpointer.add_recoverable("train_loader", train_loader)
    some = parts["train"].sample(frac=1, random_state=0).groupby(column).head(REFERENCES)
    brain.reference_loader, brain.valid_loader = (
        make(by_length(table), batch_size=evaluated) for table in (some, parts["valid"])
    )
    return train_loader, brain.valid_loader


def fit_classifier(brain: EncoderBrain, trained: Tensor, parts: Parts, labels: Sequence[str]) -> None:
    """Fit a classifier that is not trained by gradients on the training part, chosen on the validation part."""
    classifier = brain.modules.classifier
    if not hasattr(classifier, "fit"):
        return
    index = {label: i for i, label in enumerate(labels)}
    targets = {name: torch.tensor([index[one] for one in parts[name]["emotion"]]) for name in ("train", "valid")}
    valid = embed(brain, parts["valid"], labels)
    classifier.cpu().fit(trained, targets["train"], valid, targets["valid"])
    classifier.to(brain.device)
    brain.best.setdefault("accuracy", classifier.chosen["accuracy"])
    logger.info("SVM: %s", classifier.chosen)
