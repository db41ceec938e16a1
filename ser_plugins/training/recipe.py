"""What a run is: a YAML, the settings of its corpus and the command line, merged."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import speechbrain as sb
import yaml
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from speechbrain.utils.run_opts import RunOptions
from torch import Tensor

from ser_plugins import configuration
from ser_plugins.audio.handmade import keep_features
from ser_plugins.audio.speech import SpeechNormalizer
from ser_plugins.corpora.corpus import Corpus
from ser_plugins.errors import InputError
from ser_plugins.model_folder.loading import check_device

logger = logging.getLogger(__name__)
ABOVE_ZERO = {
    *("batch_size", "clusters", "crop_seconds", "embedding_size", "lr", "lr_decay_epochs", "n_bins", "n_folds"),
    *("number_of_epochs", "shard_size"),
}
WHOLE = {"n_folds", "seed", "valid_speakers"}
FLAGS = {f"--{field.name}" for field in fields(RunOptions) if field.default is False}
MANY = {"--jit_module_keys", "--compile_module_keys"}  # take several words
OF_CORPUS = ("column", "labels", "prior")  # what a run is told by its corpus
MOST = 2**32  # of a seed, for NumPy


@dataclass
class Recipe:
    """A strategy on a corpus, from the command line.

    Attributes
    ----------
    tree : dict
        The YAML of the run, all layers merged: emotion.yaml, the strategy, the corpus' settings, the command line and
        below it the file of ``--overrides``.
    corpus_tree : dict
        The YAML of the corpus.
    folder : pathlib.Path
        Where the YAML files are.
    options : object
        SpeechBrain's run options (``--device``, ``--precision`` …).
    """

    tree: configuration.Tree
    corpus_tree: configuration.Tree
    folder: Path
    options: Any

    @classmethod
    def from_arguments(cls, arguments: Sequence[str]) -> Recipe:
        """Read ``hparams/s5.yaml --key value …``; keys of the file of ``--overrides`` are as if given one by one."""
        file, options, given = _read_words(arguments)
        path = Path(file)
        strategy = configuration.read(path)
        if "corpus" not in strategy:
            raise InputError(f"{path} is no recipe; give a strategy, as hparams/s1.yaml, or hparams/pretrain.yaml")
        name = given.get("corpus", strategy["corpus"])
        corpus_path = path.parent / "corpora" / f"{name}.yaml"
        if not corpus_path.is_file():
            known = ", ".join(sorted(file.stem for file in corpus_path.parent.glob("*.yaml")))
            raise InputError(f"unknown corpus {name!r}; there are {known}")
        corpus = configuration.read(corpus_path)
        # What a strategy turns off, as crops, no corpus turns on.
        settings = {k: v for k, v in (corpus.pop("settings") or {}).items() if strategy.get(k, v) is not None}
        corpus_keys = {key: given.pop(key) for key in list(given) if key in corpus}
        known_tree = {**strategy, **{key: None for key in corpus}}
        configuration.merge(known_tree, given, "command line")
        for key, value in given.items():
            _check_kind(key, strategy.get(key), value)
        # Run options that the YAML has, too, are hyper-parameters, wherever they are given.
        given |= {key: options[key] for key in options.overridden_args if key in strategy}
        check_device(options["device"])
        tree = configuration.merge(configuration.merge(strategy, settings, str(corpus_path)), given, "command line")
        _check_channels(tree)
        return cls(tree, {**corpus, **corpus_keys}, path.parent, options)

    def require(self, key: str, other: str) -> None:
        """Stop where the YAML is one for another recipe, as a key tells that it does not have."""
        if key not in self.tree:
            raise InputError(f"this YAML is not for this recipe; give it to {other}")

    def read_corpus(self) -> Corpus:
        """Read and check the corpus, and tell what is wrong with it."""
        corpus: Corpus = configuration.build(self.corpus_tree)["reader"].read()
        if not corpus.labels:
            raise InputError(f"{corpus.name} has no emotions: give it to recipes/pretrain.py")
        for row in corpus.faults.to_dict("records"):
            logger.warning("%s: %s", row["path"], row["fault"])
        note = " (synthetic audio)" if corpus.synthetic else ""
        logger.info("%s%s: %d utterances of %d speakers", corpus.name, note, len(corpus.table), len(corpus.speakers))
        return corpus

    def output_folder(self) -> Path:
        """Folder of the results."""
        if self.tree["output_folder"] is not None:
            return Path(self.tree["output_folder"])
        return self.standard_folder(Path("results"))

    def standard_folder(self, results: Path) -> Path:
        """Folder of the results below ``results``."""
        return results / str(self.tree["strategy"]) / str(self.tree["corpus"]) / str(self.tree["seed"])

    def normalizer(self) -> SpeechNormalizer:
        """What turns files into speech."""
        normalizer: SpeechNormalizer = self._build("audio_normalizer")["audio_normalizer"]
        return normalizer

    def front_end(self) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
        """What turns speech into features, and what normalises them."""
        built = self._build("compute_features", "mean_var_norm")
        keep_features(built["compute_features"], self.tree["cache_folder"])
        return built["compute_features"], built["mean_var_norm"]

    def _build(self, *names: str) -> Any:
        tree = configuration.resolve(self.tree)
        return configuration.build({name: tree[name] for name in names})

    def folds(self) -> list[int]:
        """Folds that are asked for."""
        fold, count = self.tree["fold"], int(self.tree["n_folds"])
        if fold == "all":
            return list(range(1, count + 1))
        try:
            return list(dict.fromkeys(int(number) for number in str(fold).split(",")))
        except ValueError:
            raise InputError(f"--fold {fold}: give a number from 1 to {count}, some as 1,2,3, or all") from None


def _check_kind(key: str, default: Any, value: Any) -> None:
    """Stop where a value is not of the kind of the one that it takes the place of."""
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise InputError(f"--{key} {value}: give true or false")
    elif isinstance(default, int | float) and key != "fold":
        whole = isinstance(default, int)
        if isinstance(value, str | bool) or (whole and isinstance(value, float)):
            raise InputError(f"--{key} {value}: give a {'whole ' * whole}number")


def _check_channels(tree: configuration.Tree) -> None:
    """Stop where the last stage gives descriptors of another size than the pooling takes."""
    channels, size = tree.get("channels"), tree.get("descriptor_size")
    if isinstance(channels, list) and isinstance(channels[-1], int) and channels[-1] != size:
        raise InputError(f"--channels {channels}: the last is not {size}, --descriptor_size; give that, too")


def _check_words(words: Sequence[str]) -> None:
    """Stop at what SpeechBrain would take for something else."""
    for word in words:
        if word.count("=") > word.startswith("--"):  # SpeechBrain would take it for a space
            raise InputError(f"{word}: the command line takes no equals sign in a value; give another name")
        if " #" in word:
            raise InputError(f"{word}: what follows ' #' is a comment in YAML; give another name")
    option = ""
    for before, word in itertools.pairwise(words):  # SpeechBrain would take it for a part of the value before it
        option = before if before.startswith("--") else option
        taken = before.startswith("--") and "=" not in before and before not in FLAGS
        if not word.startswith("--") and not taken and option not in MANY:
            kind = "takes no value" if before in FLAGS else "is a whole value; where one has spaces, put it in quotes"
            raise InputError(f"{before} {kind}: leave {word} out")


def _read_words(words: Sequence[str]) -> tuple[str, Any, configuration.Tree]:
    """Read the command line: the file, SpeechBrain's run options, and the keys with their values, which are YAML."""
    _check_words(words)
    try:
        file, options, text = sb.parse_arguments(list(words))
        given = dict(YAML().load(text) or {})
        if overrides := given.pop("overrides", None):
            given = {**configuration.read(str(overrides)), **given}
    except (YAMLError, yaml.YAMLError) as error:
        reason = getattr(error, "problem", None) or str(error)
        raise InputError(f"a value of the command line is not valid YAML, or a key is given twice: {reason}") from error
    for word in words:  # argparse takes a part of an option's name for the option, and SpeechBrain forgets it then
        name = word.removeprefix("--").partition("=")[0]
        if word.startswith("--") and name not in options and any(key.startswith(name) for key in options):
            whole = " or ".join(f"--{key}" for key in options if key.startswith(name))
            raise InputError(f"{word}: give the whole name of the option, {whole}")
    for key, value in given.items():
        if key.endswith(("_folder", "_file", "pretrained_encoder")) and not isinstance(value, str | None):
            raise InputError(f"--{key} {value}: YAML takes this for no text; write ./ before it")
        number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST
        if key in WHOLE and not (number or (value is None and key == "valid_speakers")):
            raise InputError(f"--{key} {value}: give a whole number")
        if key in OF_CORPUS:
            raise InputError(f"--{key}: the corpus tells it; leave it out")
        if key in ABOVE_ZERO and isinstance(value, int | float) and value <= 0:
            raise InputError(f"--{key} {value}: give a number above 0")
    return file, options, given
