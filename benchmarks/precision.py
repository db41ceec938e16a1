"""What bfloat16 does to gradients, beside what a little noise and another batch do to them.

python benchmarks/precision.py MODEL_FOLDER --corpus ravdess --data_folder FOLDER [--key value …] computes S1's gradient
on training batches in float32 and again with one thing changed, for random weights and for those of MODEL_FOLDER, a
trained S1. Writes the cosines of the two to benchmarks/results/precision.md.
"""

import logging
import sys
from statistics import mean
from typing import Any

import torch
from ser_plugins.training.emotions import prepare_corpus
from torch import Tensor, nn
from torch.nn import functional

from ser_plugins import configuration, load
from ser_plugins.corpora.folds import fold_parts
from ser_plugins.files import atomic_write
from ser_plugins.training.data import make_dataset
from ser_plugins.training.recipe import Recipe

BATCHES = 8
NOISE = 1e-3  # of the waveform's deviation: 60 dB below it


def read_batches(recipe: Recipe) -> tuple[list[tuple[Tensor, Tensor]], dict[str, Any]]:
    """Training crops [B, T] with their labels, and what S1 is made of."""
    corpus = prepare_corpus(recipe, recipe.read_corpus())
    table = fold_parts(corpus, recipe.folds()[0])["train"]
    tree = {**recipe.tree, "labels": list(corpus.labels)}
    hparams = configuration.build(tree)
    dataset = make_dataset(table, "emotion", corpus.labels, hparams["crop_seconds"])
    torch.manual_seed(0)
    items = [dataset[int(i)] for i in torch.randperm(len(dataset))[: BATCHES * hparams["batch_size"]]]
    wavs = torch.stack([item["signal"] for item in items]).split(hparams["batch_size"])
    labels = torch.cat([item["label"] for item in items]).split(hparams["batch_size"])
    return list(zip(wavs, labels, strict=True)), hparams


def gradient(hparams: dict[str, Any], wavs: Tensor, labels: Tensor, bf16: bool = False) -> Tensor:
    """The gradient of cross-entropy by all weights, in one vector."""
    modules = nn.ModuleList([hparams["embedding_model"], hparams["classifier"]]).train()
    modules.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        feats = hparams["mean_var_norm"](hparams["compute_features"](wavs), torch.ones(len(wavs)))
        scores = hparams["classifier"](hparams["embedding_model"](feats)).squeeze(1)
    functional.nll_loss(scores, labels).backward()
    return torch.cat([weight.grad.flatten() for weight in modules.parameters() if weight.grad is not None])


def cosines(hparams: dict[str, Any], batches: list[tuple[Tensor, Tensor]]) -> list[float]:
    """Mean cosine of the float32 gradient and that in bfloat16, that with noise, and that of the next batch."""
    plain = [gradient(hparams, *batch) for batch in batches]
    short = [gradient(hparams, *batch, bf16=True) for batch in batches]
    noisy = [gradient(hparams, x + NOISE * x.std() * torch.randn_like(x), y) for x, y in batches]
    others = [*plain[1:], plain[0]]
    return [mean(map(cosine, plain, changed)) for changed in (short, noisy, others)]


def cosine(one: Tensor, other: Tensor) -> float:
    return float(functional.cosine_similarity(one, other, dim=0))


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    folder, *arguments = sys.argv[1:]
    recipe = Recipe.from_arguments(["hparams/s1.yaml", "--pretrained_encoder", "none", *arguments])
    batches, hparams = read_batches(recipe)
    rows = [("random", cosines(hparams, batches))]
    trained = load(folder, device="cpu").mods
    for name in ("embedding_model", "classifier"):
        hparams[name].load_state_dict(trained[name].state_dict())
    rows.append(("trained", cosines(hparams, batches)))
    lines = ["| weights | bfloat16 | noise at −60 dB | another batch |", "|---|---|---|---|"]
    lines += [f"| {name} | {' | '.join(f'{value:.3f}' for value in found)} |" for name, found in rows]
    atomic_write(
        "benchmarks/results/precision.md",
        f"Cosine with the float32 gradient, mean of {len(batches)} batches.\n\n" + "\n".join(lines) + "\n",
    )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
