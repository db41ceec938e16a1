"""Recordings of the cases: those of the command line, or the built-in corpus."""

from pathlib import Path

from speechbrain.utils.distributed import infer_device

from ser_plugins.training.recipe import Recipe

arguments: list[str] = []


def recipe() -> Recipe:
    """Make the recipe of S5 without a pre-trained encoder, with the options of the command line."""
    return Recipe.from_arguments(["s5", "--pretrained_encoder", "none", *arguments])


def on_gpu() -> bool:
    """True where the recipe trains on a GPU, by ``--device`` or by default."""
    return str(recipe().options["device"] or infer_device()).startswith("cuda")


def read_files(count: int) -> list[Path]:
    """List recordings of the corpus, evenly spread over it."""
    paths = list(recipe().read_corpus().table["path"])
    return [Path(path) for path in paths[:: max(1, len(paths) // count)][:count]]
