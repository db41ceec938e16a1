"""Folds of a corpus: checks before training, loaders, evaluation and export."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from speechbrain.dataio.dataloader import SaveableDataLoader
from torch import Tensor

from ser_plugins import configuration
from ser_plugins.corpora.corpus import Corpus
from ser_plugins.corpora.folds import fold_parts, folds_table, write_folds
from ser_plugins.corpora.prepared import prepare
from ser_plugins.errors import InputError
from ser_plugins.evaluation.calibration import probability_measures, probability_sums
from ser_plugins.evaluation.figures import confusion_figure
from ser_plugins.evaluation.measures import measure, measure_each
from ser_plugins.files import atomic_path, atomic_write
from ser_plugins.metric.sampler import BalancedBatchSampler
from ser_plugins.model_folder.embedding_map import EmbeddingMap
from ser_plugins.model_folder.lineage import (
    Lineage,
    Training,
    check_unheard,
    read_lineage,
    write_lineage,
)
from ser_plugins.model_folder.saving import CHECKPOINT, HYPERPARAMS, inference_yaml, save_model_folder, self_contained
from ser_plugins.training.brain import EncoderBrain
from ser_plugins.training.data import by_length, check_crop, make_loader, with_speaker_features
from ser_plugins.training.evaluation import embed, embed_augmented, predictions
from ser_plugins.training.recipe import Recipe
from ser_plugins.training.run import build, finish, has_checkpoint, is_finished, pretrained_source, tell_finished
from ser_plugins.training.transfer import find_weights

logger = logging.getLogger(__name__)
Parts = dict[str, pd.DataFrame]
EVALUATED = 4  # mini-batches that a GPU evaluates at once: a small network waits for the launch of its kernels


def missing_folds(recipe: Recipe, output: Path) -> list[int]:
    """List the folds that a run is asked for and that are not finished."""
    tree = recipe.tree
    missing = [fold for fold in recipe.folds() if not is_finished({**tree, "fold": fold}, output / f"fold{fold}")]
    if not missing:
        tell_finished(tree, output, output / f"fold{recipe.folds()[0]}" / HYPERPARAMS)
    return missing


def fold_tree(tree: configuration.Tree, corpus: Corpus, parts: Parts, fold: int) -> configuration.Tree:
    """Complete a run's YAML with the labels of the corpus, their share of the training part, and the fold."""
    shares = parts["train"]["emotion"].value_counts(normalize=True)
    prior = [float(shares.get(label, 0.0)) for label in corpus.labels]
    return {**tree, "labels": list(corpus.labels), "prior": prior, "fold": fold}


def check_folds(recipe: Recipe, corpus: Corpus, folds: Sequence[int]) -> None:
    """Find what is wrong with a run before its audio is prepared.

    Raises
    ------
    InputError
        If the corpus has no emotions, one of them has no training utterance, an object of the YAML cannot be built, or
        the pre-trained encoder heard a speaker that is held out.
    """
    tree = recipe.tree
    if not corpus.labels:
        raise InputError(f"{corpus.name} has no emotions: give it to recipes/pretrain.py")
    check_crop(tree["crop_seconds"])
    for fold in folds:
        parts = fold_parts(corpus, fold, tree["n_folds"], tree["split"])
        trained = set(parts["train"]["emotion"])
        if missing := [label for label in corpus.labels if label not in trained]:
            raise InputError(
                f"corpus {corpus.name}, fold {fold}: no training speaker has an utterance of {missing[0]}; leave that "
                "emotion out, or add utterances of other speakers"
            )
        source = pretrained_source({**tree, "fold": fold})
        if source is not None:
            held_out = pd.concat([parts["valid"], parts["test"]])[["id", "speaker"]]
            named = held_out if corpus.corpora else f"{corpus.name}-" + held_out
            check_unheard(read_lineage(find_weights(source)), named, source)
    if folds:
        parts = fold_parts(corpus, folds[0], tree["n_folds"], tree["split"])
        make_batches(build(fold_tree(tree, corpus, parts, folds[0])), parts)


def write_division(corpus: Corpus, n_folds: int, split: str, output: Path) -> None:
    """Write ``folds.csv`` and ``faults.csv``, unless a fold of another division has been trained there."""
    folds = output / "folds.csv"
    begun = any(has_checkpoint(file.parent) for file in output.glob(f"fold*/**/{HYPERPARAMS}"))
    if begun and folds.is_file() and folds.read_bytes() != folds_table(corpus, n_folds, split):
        raise InputError(
            f"{output} holds folds of other utterances, or divided otherwise; delete it, or give another "
            "--output_folder or the corpus as it was"
        )
    write_folds(corpus, folds, n_folds, split)
    atomic_write(output / "faults.csv", corpus.faults.to_csv(index=False, lineterminator="\n"))


def prepare_corpus(recipe: Recipe, corpus: Corpus) -> Corpus:
    """Prepare the audio: add a column ``prepared`` and, for speaker normalisation, ``speaker_features``."""
    paths = [str(path) for path in corpus.table["path"]]
    prepared = prepare(paths, recipe.normalizer(), recipe.tree["cache_folder"])
    table = corpus.table.assign(prepared=list(map(str, prepared)))
    if "features" in recipe.tree["speaker_normalization"]:
        table = with_speaker_features(table, recipe.features())
    return replace(corpus, table=table)


def make_batches(hparams: Mapping[str, Any], parts: Parts) -> BalancedBatchSampler:
    """Make the sampler of training batches; with centered embeddings, a batch holds all emotions of its speakers."""
    classes = list(hparams["labels"])
    labels = [classes.index(name) for name in parts["train"]["emotion"]]
    centered = "embeddings" in hparams["speaker_normalization"]
    speakers = list(parts["train"]["speaker"]) if centered else None
    return BalancedBatchSampler(labels, hparams["batch_size"], seed=hparams["seed"], speakers=speakers)


def make_loaders(
    brain: EncoderBrain, hparams: Mapping[str, Any], parts: Parts
) -> tuple[SaveableDataLoader, SaveableDataLoader]:
    """Make loaders of balanced random crops for training and of whole utterances, by length, for validation."""
    batches = make_batches(hparams, parts)
    make = partial(make_loader, column="emotion", classes=list(hparams["labels"]), device=brain.device)
    train_loader = make(parts["train"], crop_seconds=hparams["crop_seconds"], batch_sampler=batches)
    train_loader.generator = torch.Generator()  # a loader draws a number at its start; not from the step's generator
    brain.checkpointer.add_recoverable("train_loader", train_loader)
    small = brain.device_type == "cuda" and getattr(brain.modules.embedding_model, "capturable", False)
    size = batches.batch_size * (EVALUATED if small else 1)
    return train_loader, make(by_length(parts["valid"]), batch_size=size)


def fit_classifier(classifier: Any, embeddings: Mapping[str, Tensor], parts: Parts, labels: Sequence[str]) -> None:
    """Fit an SVM on embeddings of the training part; validation chooses its settings.

    Parameters
    ----------
    classifier : torch.nn.Module
        A classifier with ``fit``, as `ser_plugins.SVMClassifier`.
    embeddings : mapping
        By `embed_parts`.
    parts : mapping
        Tables of the parts.
    labels : sequence of str
        Emotions, in the order of the classes.
    """
    targets = {name: _targets(parts[name], labels) for name in ("train", "valid")}
    rows = embeddings.get("rows", torch.arange(len(parts["train"])))
    known = embeddings.get("augmented", embeddings["train"])
    classifier.fit(known, targets["train"][rows], embeddings["valid"], targets["valid"])
    logger.info("%s: %s", type(classifier).__name__, classifier.chosen)


def calibrate(
    classifier: Any, embeddings: Mapping[str, Tensor], parts: Parts, labels: Sequence[str]
) -> dict[str, float]:
    """Calibrate a classifier on the validation part, if it can be; see `ser_plugins.SoftmaxClassifier.calibrate`.

    Returns
    -------
    dict
        ``temperature``, and the expected calibration error on the test part: ``ece_uncalibrated`` and ``ece``.
    """
    if not hasattr(classifier, "calibrate"):
        return {}
    targets = _targets(parts["test"], labels)
    before = calibration_error(classifier(embeddings["test"]), targets)
    temperature = classifier.calibrate(embeddings["valid"], _targets(parts["valid"], labels))
    after = calibration_error(classifier(embeddings["test"]), targets)
    return {"temperature": temperature, "ece_uncalibrated": before, "ece": after}


def calibration_error(scores: Tensor, targets: Tensor) -> float:
    """Compute the expected calibration error of log-probabilities [N, 1, C] for class indices [N]."""
    probabilities, true = scores.squeeze(1).double().exp().numpy(), targets.numpy()
    sums = probability_sums(probabilities, true, probabilities.argmax(1), np.zeros_like(true))
    return float(probability_measures(sums[0])["ece"])


def _targets(table: pd.DataFrame, labels: Sequence[str]) -> Tensor:
    return torch.from_numpy(pd.Index(list(labels)).get_indexer(pd.Index(table["emotion"])))


def embed_parts(brain: EncoderBrain, parts: Parts, labels: Sequence[str], fit_passes: int = 0) -> dict[str, Tensor]:
    """Embed the whole utterances of each part, [N, 1, E] in the order of its table.

    With ``fit_passes``, "augmented" has the embeddings that a classifier with ``fit`` learns from, and "rows" the
    rows of the training part: see `embed_augmented`.
    """
    embeddings = {name: embed(brain, table, labels) for name, table in parts.items()}
    if fit_passes and hasattr(brain.modules.classifier, "fit"):
        found = embed_augmented(brain, parts["train"], labels, fit_passes)
        embeddings["augmented"], embeddings["rows"] = found
    return embeddings


def evaluate_fold(
    tree: configuration.Tree,
    corpus: Corpus,
    parts: Parts,
    classifier: Any,
    embeddings: Mapping[str, Tensor],
    facts: dict[str, Any],
    folder: Path,
) -> dict[str, Any]:
    """Fit an SVM if there is one, calibrate the classifier, predict the test part, and write all results but the model.

    Parameters
    ----------
    tree : dict
        The run's YAML.
    corpus, parts : Corpus, dict
        The corpus, and the tables of the fold's parts.
    classifier : torch.nn.Module
        Trained, or with ``fit``.
    embeddings : mapping
        Embeddings of each part, by `embed_parts`.
    facts : dict
        What the run records besides: see `run_facts`.
    folder : pathlib.Path
        Folder of the fold.

    Returns
    -------
    dict
        All metrics.

    Raises
    ------
    InputError
        If the classifier cannot be fitted; ``embeddings.npz`` is kept.
    """
    labels, classifier = corpus.labels, classifier.cpu().eval()
    with atomic_path(folder / "embeddings.npz") as part:
        np.savez(part, id=parts["test"]["id"].to_numpy(str), embedding=embeddings["test"].squeeze(1).numpy())
    if hasattr(classifier, "fit"):
        fit_classifier(classifier, embeddings, parts, labels)
        found = classifier.chosen["accuracy"]
        facts = {"valid_accuracy": found, **facts, "classifier_valid_accuracy": found}
    with torch.no_grad():
        facts = {**calibrate(classifier, embeddings, parts, labels), **facts}
        scores = classifier(embeddings["test"])
    frame = predictions(parts["test"], scores, labels, corpus.corpora)
    metrics = {
        **{key: tree[key] for key in ("strategy", "fold", "seed", "split", "speaker_normalization")},
        **{"corpus": corpus.name, "synthetic": corpus.synthetic, "licence": corpus.licence, "labels": list(labels)},
        **{f"n_{name}": len(table) for name, table in parts.items()},
        **measure(frame, labels),
        **({"corpora": measure_each(frame, corpus.corpora)} if corpus.corpora else {}),
        **facts,
        "manifest_sha256": corpus.checksum(),
    }
    with atomic_path(folder / "predictions.csv") as part:
        frame.to_csv(part, index=False)
    confusion_figure(metrics["confusion"], labels, title_of(metrics), folder / "confusion.png")
    return metrics


def title_of(metrics: Mapping[str, Any]) -> str:
    """Title of a fold's results in one line."""
    note = " (synthetic audio)" if metrics["synthetic"] else ""
    note += " (test speakers also in training)" if metrics.get("split") == "utterance" else ""
    name = f"{metrics['strategy']}, {metrics['corpus']}{note}, fold {metrics['fold']}"
    return f"{name}: {100 * metrics['accuracy']:.1f} %"


def export_fold(
    tree: configuration.Tree,
    corpus: Corpus,
    parts: Parts,
    modules: Any,
    embeddings: Mapping[str, Tensor],
    metrics: Mapping[str, Any],
    lineage: Lineage,
    folder: Path,
) -> None:
    """Write the model folder with its lineage, then ``metrics.json``, which marks a finished fold."""
    encoder, classifier = modules["embedding_model"], modules["classifier"]
    used = self_contained(configuration.resolve(tree), encoder)
    yaml = f"# {title_of(metrics)}, seed {tree['seed']}\n{inference_yaml(used)}"
    model = folder / "model"
    save_model_folder(model, yaml, encoder, classifier, corpus.labels)
    EmbeddingMap.fit(embeddings["train"].squeeze(1).numpy(), parts["train"]["emotion"]).save(model)
    prefix = "" if corpus.corpora else f"{corpus.name}-"
    speakers, validated = (prefix + parts[name]["speaker"] for name in ("train", "valid"))
    training = Training.of_run(metrics, model / CHECKPOINT, speakers, valid_speakers=validated)
    write_lineage(model, [*lineage, training])
    finish(folder, metrics)
    logger.info("%s; %s", title_of(metrics), folder)
    for name, measured in metrics.get("corpora", {}).items():
        logger.info("of it %s: %.1f %%", name, 100 * measured["accuracy"])
