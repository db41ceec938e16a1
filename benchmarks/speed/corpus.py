"""The recordings that cases take: those of the command line, or the built-in corpus."""

from pathlib import Path

from speechbrain.utils.distributed import infer_device

from ser_plugins.training.recipe import Recipe

arguments: list[str] = []


def recipe(*more: str, strategy: str = "s5") -> Recipe:
    """The recipe of a strategy with the command line's corpus, trained from scratch."""
    return Recipe.from_arguments([f"hparams/{strategy}.yaml", "--pretrained_encoder", "none", *more, *arguments])


def on_gpu() -> bool:
    """True where the recipe trains on a GPU: told to, or because there is one."""
    return str(recipe().options["device"] or infer_device()).startswith("cuda")


def read_files(count: int) -> list[Path]:
    """Some recordings of the corpus, spread over it."""
    paths = list(recipe().read_corpus().table["path"])
    return [Path(path) for path in paths[:: max(1, len(paths) // count)][:count]]
