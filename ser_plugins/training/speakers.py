"""Pre-training: an encoder that identifies speakers, judged by the equal error rate of speakers it has never heard."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from speechbrain.utils.distributed import run_on_main
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm import tqdm

from ser_plugins import configuration
from ser_plugins.audio.speech import VADS, SpeechNormalizer
from ser_plugins.corpora.corpus import Corpus
from ser_plugins.corpora.shards import ShardFolder, open_shards, write_shards
from ser_plugins.corpora.speakers import read_trials, split_speakers
from ser_plugins.errors import InputError, disk_full_told
from ser_plugins.evaluation.figures import curve_figure
from ser_plugins.evaluation.measures import equal_error_rate
from ser_plugins.model_folder.saving import inference_yaml, save_model_folder
from ser_plugins.training.brain import EncoderBrain
from ser_plugins.training.fit import Hparams, alone_in, finish, is_finished, run_facts, train
from ser_plugins.training.recipe import Recipe
from ser_plugins.training.stream import CropStream, StreamLoader, utterance_loader

SPLIT_SEED = 1  # whatever a training's seed is: all of a corpus' trainings take the same shards, and compare
logger = logging.getLogger(__name__)


class SpeakerBrain(EncoderBrain):
    """Train to tell speakers apart; validate by trial pairs of others."""

    criterion = "eer"
    shards: ShardFolder

    def validate(self) -> dict[str, float]:
        """Accuracy on utterances of the training speakers, equal error rate on trial pairs of others."""
        return {**super().validate(), "eer": trial_error(self, self.shards)}


@torch.no_grad()
def trial_error(brain: EncoderBrain, shards: ShardFolder) -> float:
    """Equal error rate of the trial pairs, by the cosine of the embeddings of whole utterances."""
    encoder = brain.modules.embedding_model
    encoder = getattr(encoder, "module", encoder)  # outside of DDP, which would wait for the others
    found: dict[str, Tensor] = {}
    for batch in tqdm(utterance_loader(shards.part("trials")), desc="trials", leave=False):
        wavs, lengths = batch.to(brain.device).signal
        feats = brain.modules.mean_var_norm(brain.modules.compute_features(wavs), lengths)
        embeddings = encoder(feats, lengths).squeeze(1).float()
        found.update(zip(batch.id, functional.normalize(embeddings).cpu(), strict=True))
    pairs = shards.trials()
    first, second = (torch.stack([found[name] for name in pairs[column]]) for column in ("first", "second"))
    return equal_error_rate(pairs["target"].tolist(), (first * second).sum(1).tolist())


def pretrain(recipe: Recipe) -> Path:
    """Pack the corpus, train, and leave ``encoder/``; return the folder of the results."""
    recipe.require("shards_folder", "recipes/train.py")
    check_voices(recipe)
    output = recipe.output_folder()
    if is_finished(recipe.tree, output):
        logger.info("%s is finished; delete it, or give another --output_folder or --seed, to train anew", output)
        return output
    with disk_full_told(output, recipe.tree["cache_folder"]):
        shards = run_on_main(prepare_shards, [recipe])
        tree = {**recipe.tree, "labels": shards.speakers}
        source = tree["pretrained_encoder"]
        with alone_in(output):
            brain, _ = train(tree, recipe.options, output, source, SpeakerBrain, partial(make_loaders, shards=shards))
            run_on_main(export, [recipe, tree, shards, brain, output])
    return output


def check_voices(recipe: Recipe) -> None:
    """Stop where what tells the speakers apart is to be taken away."""
    _, norm = recipe.front_end()
    if getattr(norm, "axis", None) == "speaker" or recipe.tree["speaker_centred"]:
        raise InputError(
            "speakers are told apart by what --norm_axis speaker and --speaker_centred take away; leave them to "
            "recipes/train.py"
        )


def prepare_shards(recipe: Recipe) -> ShardFolder:
    """Open the corpus' shards, or pack them."""
    tree = recipe.tree
    folder = Path(tree["shards_folder"] or Path(tree["cache_folder"]) / "shards" / tree["corpus"])
    if not any(value for key, value in recipe.corpus_tree.items() if key.endswith("_folder")):
        found = open_shards(folder)
        if found is not None:
            check_shards(found, recipe.normalizer())
            if given := [f"--{key}" for key in ("trials_file", "valid_speakers") if tree[key] is not None]:
                words = " and ".join(given)
                logger.warning("%s has the pairs that it was packed with; without effect: %s", folder, words)
            return found
    corpus = read_speakers(recipe)
    held_out = tree["valid_speakers"]
    if tree["trials_file"] is not None:
        held_out = 0
    elif held_out is None:
        held_out = min(max(corpus.table["speaker"].nunique() // 10, 2), 50)
    elif held_out == 0:
        raise InputError("--valid_speakers 0 leaves no pairs to validate on; give 2 or more, or --trials_file")
    parts, pairs = split_speakers(corpus, held_out, tree["trial_pairs"], SPLIT_SEED)
    if tree["trials_file"] is not None:
        parts["trials"], pairs = read_trials(tree["trials_file"], tree["trials_folder"] or corpus.root)
    for name, part in parts.items():
        logger.info("%s: %d utterances of %d speakers", name, len(part.table), part.table["speaker"].nunique())
    return write_shards(parts, pairs, recipe.normalizer(), folder, tree["shard_size"])


def check_shards(shards: ShardFolder, normalizer: SpeechNormalizer) -> None:
    """Stop where shards are there, without their corpus, that another detector found the speech of.

    Its release is not asked for: here it need not even be installed.
    """
    package = "none" if normalizer.vad == "none" else VADS[normalizer.vad][0]
    if shards.index["settings"]["vad"].split()[0] != package:
        raise InputError(f"{shards.folder} was made with another vad; give the corpus' folder to pack it anew")


def read_speakers(recipe: Recipe) -> Corpus:
    """Read a corpus of speakers, or the speakers of a corpus of emotions."""
    corpus: Corpus = configuration.build(recipe.corpus_tree)["reader"].read()
    return replace(corpus, labels=(), table=corpus.table[["path", "speaker"]])


def make_loaders(brain: EncoderBrain, hparams: Hparams, shards: ShardFolder) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Random crops for training, whole utterances of the same speakers for validation."""
    assert isinstance(brain, SpeakerBrain)
    speakers = shards.speakers
    stream = CropStream(
        shards.part("train"), speakers, hparams["batch_size"], hparams["crop_seconds"], int(hparams["seed"])
    )
    brain.shards = shards
    brain.train_batches = StreamLoader(stream, hparams["loader_workers"])
    brain.checkpointer.add_recoverable("train_loader", brain.train_batches)
    return brain.train_batches, utterance_loader(shards.part("valid"), speakers)


def export(recipe: Recipe, tree: configuration.Tree, shards: ShardFolder, brain: EncoderBrain, output: Path) -> None:
    """Leave the encoder, the curve and what was measured."""
    synthetic = shards.index["synthetic"]
    name = f"speaker identification, {tree['corpus']}{' (synthetic audio)' if synthetic else ''}"
    metrics = {
        "strategy": tree["strategy"],
        "corpus": shards.index.get("corpus", tree["corpus"]),  # of a merged one its parts: one+two
        "synthetic": synthetic,
        "seed": tree["seed"],
        "speakers": len(shards.speakers),
        **{f"n_{part}": sum(counts) for part, counts in shards.index["parts"].items()},
        "trials": len(shards.trials()),
        "hours": round(shards.index["seconds"] / 3600, 2),
        "eer": brain.best["eer"],
        "accuracy": brain.best["accuracy"],
        **run_facts(brain),
        "shards_sha256": shards.index["settings"]["sha256"],
    }
    title = f"{name}: EER {100 * metrics['eer']:.2f} %, accuracy {100 * metrics['accuracy']:.1f} %"
    curve_figure(output / "train_log.txt", title, output / "curve.png")
    yaml = f"# {name}, seed {tree['seed']}\n" + inference_yaml(
        configuration.resolve(tree), recipe.folder / "inference.yaml"
    )
    modules = brain.modules
    save_model_folder(output / "encoder", yaml, modules.embedding_model, modules.classifier, shards.speakers)
    finish(output, metrics)
    logger.info("%s; %s", title, output / "encoder")
