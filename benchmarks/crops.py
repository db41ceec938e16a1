"""Are utterances recognised better by the mean over their crops than whole? Accuracy on validation actors.

python benchmarks/crops.py RUN [RUN …] --corpus ravdess --data_folder FOLDER [--key value …] takes the models of all
folds of each RUN (results/S3/ravdess/1), which are not told who speaks, and writes benchmarks/results/crops.md. No test
fold is read.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from ser_plugins.training.emotions import prepare_corpus
from speechbrain.inference.classifiers import EncoderClassifier
from tables import by_fold
from tqdm import tqdm

from ser_plugins import load
from ser_plugins.corpora.folds import fold_parts
from ser_plugins.files import atomic_write
from ser_plugins.training.recipe import Recipe

SECONDS = (0.75, 1.0, 1.5, 2.0)  # each crop begins half its length after the one before


def recognised(model: EncoderClassifier, speech: torch.Tensor, seconds: float | None) -> str:
    """What the model makes of an utterance [T]: whole, or by the mean of the probabilities of its crops."""
    size = len(speech) if seconds is None else min(int(16000 * seconds), len(speech))
    crops = speech.unfold(0, size, max(size // 2, 1))
    rest = speech[-size:][None]  # up to the last sample
    scores = model.classify_batch(torch.cat([crops, rest]))[0].exp().mean(0)
    return str(model.hparams.label_encoder.ind2lab[int(scores.argmax())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path)
    given, arguments = parser.parse_known_args()
    torch.set_num_threads(1)
    recipe = Recipe.from_arguments(["hparams/s1.yaml", *arguments])
    corpus = prepare_corpus(recipe, recipe.read_corpus())
    models = [path for run in given.runs for path in sorted(run.glob("fold*/model"))]
    ways = {"whole": None} | {f"crops of {seconds} s": seconds for seconds in SECONDS}
    right: dict[str, dict[int, list[bool]]] = {way: {} for way in ways}
    for path in tqdm(models, unit="model"):
        fold = int(path.parent.name.removeprefix("fold"))
        model = load(path, device="cpu")
        valid = fold_parts(corpus, fold)["valid"]
        for prepared, emotion in zip(valid["prepared"], valid["emotion"], strict=True):
            speech = torch.from_numpy(np.load(prepared))
            for way, seconds in ways.items():
                right[way].setdefault(fold, []).append(recognised(model, speech, seconds) == emotion)
    text = by_fold(f"Accuracy on validation actors, %, of {len(models)} models.", right)
    atomic_write(Path("benchmarks/results/crops.md"), text)
    print(text)


if __name__ == "__main__":
    main()
