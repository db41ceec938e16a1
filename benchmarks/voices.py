"""How much a model that normalises by speaker must have heard of a speaker: accuracy on validation actors.

python benchmarks/voices.py RUN --corpus ravdess --data_folder FOLDER [--key value …] takes the models of all folds of
RUN (results/S8/ravdess/1), tells each the voices by some utterances of each validation speaker, drawn three times, and
writes benchmarks/results/voices.md. No test fold is read.
"""

import argparse
import random
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from ser_plugins.training.emotions import prepare_corpus
from speechbrain.inference.classifiers import EncoderClassifier
from tables import by_fold
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from ser_plugins import load
from ser_plugins.corpora.folds import fold_parts
from ser_plugins.files import atomic_write
from ser_plugins.inference.speaker import measure_speaker
from ser_plugins.model_folder.forward import embed_features
from ser_plugins.training.recipe import Recipe

COUNTS = (1, 2, 4, 8, 16, 32)
DRAWS = 3


def recognised(model: EncoderClassifier, feats: list[torch.Tensor], heard: list[torch.Tensor]) -> list[str]:
    """Predict utterances with statistics of the speaker from ``heard``, or without any if it is empty."""
    speaker = measure_speaker(model, heard) if heard else None
    batch = pad_sequence([one[0] for one in feats], batch_first=True)  # padded with blank frames, which do not count
    with torch.no_grad():
        scores = model.mods.classifier(embed_features(model.mods, batch, speaker=speaker)).squeeze(1)
    return [model.hparams.label_encoder.ind2lab[index] for index in scores.argmax(1).tolist()]


def hits(model: EncoderClassifier, table: pd.DataFrame, feats: list[torch.Tensor]) -> dict[str, list[bool]]:
    """Whether each utterance of one speaker is recognised, by what is known of the voice."""
    true, draw = list(table["emotion"]), random.Random(0)
    neutral = [one for one, emotion in zip(feats, true, strict=True) if emotion == "neutral"]
    ways = {"nothing": [[]], "all": [feats], "all that is neutral": [neutral]}
    ways |= {str(n): [draw.sample(feats, n) for _ in range(DRAWS)] for n in COUNTS if n < len(feats)}
    return {
        way: [a == b for heard in drawn for a, b in zip(recognised(model, feats, heard), true, strict=True)]
        for way, drawn in ways.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    given, arguments = parser.parse_known_args()
    torch.set_num_threads(1)
    recipe = Recipe.from_arguments(["hparams/s7.yaml", *arguments])
    corpus = prepare_corpus(recipe, recipe.read_corpus())
    folds = sorted(int(path.parent.name.removeprefix("fold")) for path in given.run.glob("fold*/model"))
    rows = {}
    for fold in tqdm(folds, unit="fold"):
        model, valid = load(given.run / f"fold{fold}" / "model", device="cpu"), fold_parts(corpus, fold)["valid"]
        for _, table in valid.groupby("speaker"):
            speech = [torch.from_numpy(np.load(path))[None] for path in table["prepared"]]
            for way, right in hits(model, table, [model.mods.compute_features(one) for one in speech]).items():
                rows.setdefault(way, {}).setdefault(fold, []).extend(right)
    order = ["nothing", *map(str, COUNTS), "all", "all that is neutral"]
    title = "Accuracy on validation actors, %, by the utterances of each that the voice is known from."
    text = by_fold(title, {way: rows[way] for way in order if way in rows})
    atomic_write(Path("benchmarks/results/voices.md"), text)
    print(text)


if __name__ == "__main__":
    main()
