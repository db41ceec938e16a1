"""A recipe's command line: a YAML, SpeechBrain's run options, and keys with their values."""

from __future__ import annotations

import itertools
import logging
import sys
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
from ser_plugins.audio.speech import SpeechNormalizer
from ser_plugins.audio.stored import keep_features
from ser_plugins.corpora.corpus import Corpus
from ser_plugins.distributed import rank_and_size
from ser_plugins.errors import InputError
from ser_plugins.memory import keep_memory
from ser_plugins.model_folder.loading import check_device
from ser_plugins.training.precision import choose_precision
from ser_plugins.training.processes import join, leave
from ser_plugins.training.run import FROM_CORPUS, commit

logger = logging.getLogger(__name__)
FLAGS = {f"--{field.name}" for field in fields(RunOptions) if field.default is False}
MANY = {"--jit_module_keys", "--compile_module_keys"}  # take several words


@dataclass
class Recipe:
    """A strategy on a corpus, as the command line asks for it.

    Attributes
    ----------
    tree : dict
        The YAML of the run, all layers merged: see `configuration.compose`.
    options : object
        SpeechBrain's run options (``--device``, ``--precision`` …).
    """

    tree: configuration.Tree
    options: Any

    @classmethod
    def from_arguments(cls, arguments: Sequence[str]) -> Recipe:
        """Read ``hparams/s5.yaml --key value …``.

        Raises
        ------
        InputError
            If a word, a key, a class or a device is unknown.
        """
        file, options, given = _read_words(arguments)
        check_device(options["device"])
        known = configuration.compose(file, given.get("corpus"))
        # Run options that the YAML has as keys are hyper-parameters, however they are given.
        given |= {key: options[key] for key in options.overridden_args if key in known}
        tree = configuration.compose(file, given.get("corpus"), given)
        tree["precision"] = choose_precision(tree["precision"], options["device"])
        configuration.check_classes(tree)  # before any work
        return cls(tree, options)

    def __getitem__(self, key: str) -> Any:
        """Return the value of a key of the YAML."""
        return self.tree[key]

    def require(self, key: str, other: str) -> None:
        """Stop where the YAML belongs to another recipe, which ``key`` shows."""
        if key not in self.tree:
            raise InputError(f"this YAML is not for this recipe; give it to {other}")

    def read_corpus(self) -> Corpus:
        """Read and check the corpus, and log its faults."""
        corpus: Corpus = self._build("reader")["reader"].read()
        for row in corpus.faults.to_dict("records"):
            logger.warning("%s: %s", row["path"], row["fault"])
        note = " (synthetic audio)" if corpus.synthetic else ""
        logger.info("%s%s: %d utterances of %d speakers", corpus.name, note, len(corpus.table), len(corpus.speakers))
        return corpus

    def output_folder(self) -> Path:
        """Folder of the results."""
        folder = self.tree["output_folder"]
        if folder is None:
            return self.standard_folder(Path("results"))
        if not isinstance(folder, str):
            raise InputError(f"--output_folder {folder}: YAML reads this as no text; write ./ before it")
        return Path(folder)

    def standard_folder(self, results: Path) -> Path:
        """Folder of the results below ``results``."""
        return results / str(self.tree["strategy"]) / str(self.tree["corpus"]) / str(self.tree["seed"])

    def normalizer(self) -> SpeechNormalizer:
        """Build the object that turns files into speech."""
        normalizer: SpeechNormalizer = self._build("audio_normalizer")["audio_normalizer"]
        return normalizer

    def features(self) -> Callable[[Tensor], Tensor]:
        """Build the object that turns speech into features."""
        built: Callable[[Tensor], Tensor] = self._build("compute_features")["compute_features"]
        keep_features(built, self.tree["cache_folder"])
        return built

    def _build(self, name: str) -> Any:
        return configuration.build({name: configuration.resolve(self.tree)[name]})

    def folds(self) -> list[int]:
        """List the folds that are asked for."""
        fold, count = self.tree["fold"], self.tree["n_folds"]
        if isinstance(count, bool) or not isinstance(count, int):
            raise InputError(f"--n_folds {count}: give a whole number")
        if fold == "all":
            return list(range(1, count + 1))
        try:
            return list(dict.fromkeys(int(number) for number in str(fold).split(",")))
        except ValueError:
            raise InputError(f"--fold {fold}: give a number from 1 to {count}, some as 1,2,3, or all") from None


def start(run: Callable[[Recipe], Path]) -> tuple[Recipe, Path]:
    """Run a recipe with the arguments of the command line; return it and the folder of its results.

    An `InputError` ends the process with its message in one line.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    for name in ("core", "utils.checkpoints", "augment.augmenter"):  # each has a level of its own
        logging.getLogger(f"speechbrain.{name}").setLevel(logging.WARNING)
    keep_memory()
    commit()  # of the code that runs, whatever is checked out when training begins
    try:
        recipe = Recipe.from_arguments(sys.argv[1:])
        recipe.options = join(recipe.options)
        if rank_and_size()[0]:
            logging.getLogger().setLevel(logging.ERROR)  # the first process logs
        folder = run(recipe)
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command resumes")
    rank, _ = rank_and_size()
    leave()
    if rank:
        sys.exit()
    return recipe, folder


def _check_words(words: Sequence[str]) -> None:
    """Stop at words that SpeechBrain's parser misreads."""
    for word in words:
        if word.count("=") > word.startswith("--"):  # it would read a space
            raise InputError(f"{word}: the command line takes no equals sign in a value; give another name")
        if " #" in word:
            raise InputError(f"{word}: what follows ' #' is a comment in YAML; give another name")
    option = ""
    for before, word in itertools.pairwise(words):  # it would join the word to the value before
        option = before if before.startswith("--") else option
        taken = before.startswith("--") and "=" not in before and before not in FLAGS
        if not word.startswith("--") and not taken and option not in MANY:
            kind = "takes no value" if before in FLAGS else "is a whole value; where one has spaces, put it in quotes"
            raise InputError(f"{before} {kind}: leave {word} out")


def _read_words(words: Sequence[str]) -> tuple[str, Any, configuration.Tree]:
    """Read the command line: the file, SpeechBrain's run options, and keys with their values in YAML."""
    _check_words(words)
    try:
        file, options, text = sb.parse_arguments(list(words))
        given = dict(YAML().load(text) or {})
    except (YAMLError, yaml.YAMLError) as error:
        reason = getattr(error, "problem", None) or str(error)
        raise InputError(f"a value of the command line is not valid YAML, or a key is given twice: {reason}") from error
    for word in words:  # argparse takes a part of an option's name for the option, and SpeechBrain drops it then
        name = word.removeprefix("--").partition("=")[0]
        if word.startswith("--") and name not in options and any(key.startswith(name) for key in options):
            whole = " or ".join(f"--{key}" for key in options if key.startswith(name))
            raise InputError(f"{word}: give the whole name of the option, {whole}")
    for key in FROM_CORPUS:
        if key in given:
            raise InputError(f"--{key}: the corpus sets it; leave it out")
    return file, options, given
