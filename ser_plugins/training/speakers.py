"""Pre-training: an encoder that identifies speakers, judged by the equal error rate of speakers it has never heard."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from ser_plugins import configuration
from ser_plugins.audio.speech import VADS, SpeechNormalizer
from ser_plugins.corpora.corpus import Corpus
from ser_plugins.corpora.shards import ShardFolder, open_shards, write_shards
from ser_plugins.corpora.speakers import read_trials, split_speakers
from ser_plugins.errors import InputError
from ser_plugins.evaluation.figures import curve_figure
from ser_plugins.evaluation.measures import pair_error
from ser_plugins.files import atomic_write
from ser_plugins.model_folder.lineage import Lineage, Training, write_lineage
from ser_plugins.model_folder.saving import CHECKPOINT, inference_yaml, save_model_folder
from ser_plugins.training.brain import EncoderBrain
from ser_plugins.training.modules import unwrap
from ser_plugins.training.recipe import Recipe
from ser_plugins.training.run import Hparams, finish, has_checkpoint
from ser_plugins.training.stream import CropStream, StreamLoader, utterance_loader

UTTERANCES = "utterances.sha256"  # checksum of the utterances that a run began with
SPLIT_SEED = 1  # one division for all seeds of a training, so that they share the shards and compare
RESULTS = {
    "eer": "EER {:.2%}",
    "accuracy": "accuracy {:.1%}",
    "frame_error": "frame error {:.3f}",
    "cosine": "cosine {:.3f}",
    "reconstruction_error": "reconstruction error {:.3f}",
}
TASKS = {"teacher": "distillation", "reconstruction_loss": "reconstruction"}  # by a key that they set
CORPUS_FOLDERS = ("data_folder", "ravdess_folder", "cremad_folder")
logger = logging.getLogger(__name__)


class SpeakerBrain(EncoderBrain):
    """Train on speaker identification; validate by trial pairs of other speakers, ``hparams.trials``."""

    criterion, best = "eer", "min"

    def validate(self) -> dict[str, float]:
        """Accuracy on utterances of the training speakers, equal error rate on trial pairs of others."""
        return {**super().validate(), "eer": self.trial_error(self.hparams.trials)}

    @torch.no_grad()
    def trial_error(self, shards: ShardFolder) -> float:
        """Equal error rate of the trial pairs, by the cosine of the embeddings of whole utterances."""
        encoder = unwrap(self.network("embedding_model"))  # outside of DDP, which would wait for the other processes
        found: dict[str, Tensor] = {}
        for batch in tqdm(utterance_loader(shards.part("trials")), desc="trials", leave=False):
            feats, lengths = self.augmentation.features(self.modules, batch.to(self.device), augment=False)
            embeddings = encoder(feats, lengths).squeeze(1).float()
            found.update(zip(batch.id, embeddings.cpu(), strict=True))
        return pair_error(found, shards.trials())


def check_utterances(shards: ShardFolder, output: Path) -> None:
    """Stop where ``output`` holds a run that began with other utterances; record those of a new run."""
    file, checksum = output / UTTERANCES, shards.index["settings"]["sha256"]
    if has_checkpoint(output) and file.is_file() and file.read_text(encoding="utf-8").strip() != checksum:
        raise InputError(f"{output} holds a run of other utterances; delete it, or give another --output_folder")
    atomic_write(file, f"{checksum}\n")


def prepare_shards(recipe: Recipe) -> ShardFolder:
    """Open the corpus' shards, or pack them."""
    tree = recipe.tree
    folder = Path(tree["shards_folder"] or Path(tree["cache_folder"]) / "shards" / tree["corpus"])
    if not any(tree[key] for key in CORPUS_FOLDERS if key in tree):
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
        raise InputError(f"{shards.folder} was made with another vad; give the corpus' folder to pack it again")


def read_speakers(recipe: Recipe) -> Corpus:
    """Read a corpus of speakers, or the speakers of a corpus of emotions."""
    corpus = recipe.read_corpus()
    return replace(corpus, labels=(), table=corpus.table[["path", "speaker"]])


def make_loaders(brain: SpeakerBrain, tree: Hparams, shards: ShardFolder) -> tuple[StreamLoader, DataLoader[Any]]:
    """Make loaders of random crops for training and of whole utterances of the same speakers for validation."""
    speakers = shards.speakers
    stream = CropStream(shards.part("train"), speakers, tree["batch_size"], tree["crop_seconds"], tree["seed"])
    train_loader = StreamLoader(stream, tree["loader_workers"])
    brain.checkpointer.add_recoverable("train_loader", train_loader)
    return train_loader, utterance_loader(shards.part("valid"), speakers)


def export_encoder(
    tree: configuration.Tree,
    shards: ShardFolder,
    modules: Any,
    best: Mapping[str, Any],
    facts: Mapping[str, Any],
    lineage: Lineage,
    output: Path,
) -> None:
    """Write the curve, ``encoder/`` with its lineage, and ``metrics.json``, which marks a finished run."""
    synthetic = shards.index["synthetic"]
    task = next((words for key, words in TASKS.items() if tree.get(key) is not None), "speaker identification")
    name = f"{task}, {tree['corpus']}{' (synthetic audio)' if synthetic else ''}"
    counts = {part: sum(counts) for part, counts in shards.index["parts"].items()}
    if not tree["labels"]:  # the utterances of the trial pairs validate, and all others are trained on
        counts |= {"train": counts["train"] + counts["valid"], "valid": 0}
    metrics = {
        "strategy": tree["strategy"],
        "corpus": shards.index.get("corpus", tree["corpus"]),  # of a merged one its parts: one+two
        "licence": shards.index.get("licence", "unknown"),  # shards of earlier versions have none
        "synthetic": synthetic,
        "seed": tree["seed"],
        "speakers": len(shards.speakers),
        **{f"n_{part}": count for part, count in counts.items()},
        "trials": len(shards.trials()),
        "hours": round(shards.index["seconds"] / 3600, 2),
        **{key: best[key] for key in RESULTS if key in best},
        **facts,
        "shards_sha256": shards.index["settings"]["sha256"],
    }
    results = ", ".join(words.format(best[key]).replace("%", " %") for key, words in RESULTS.items() if key in best)
    title = f"{name}: {results}"
    curve_figure(output / "train_log.txt", title, output / "curve.png")
    yaml = f"# {name}, seed {tree['seed']}\n" + inference_yaml(configuration.resolve(tree))
    encoder = output / "encoder"
    save_model_folder(encoder, yaml, modules["embedding_model"], modules["classifier"], tree["labels"])
    merged = "+" in metrics["corpus"]
    speakers = (name if merged else f"{metrics['corpus']}-{name}" for name in shards.speakers)
    about = f"a student of {metrics['teacher']}" if "teacher" in metrics else ""
    write_lineage(encoder, [*lineage, Training.of_run(metrics, encoder / CHECKPOINT, speakers, about)])
    finish(output, metrics)
    logger.info("%s; %s", title, encoder)
