"""The leaderboard: committed predictions of systems, evaluated by the protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ser_plugins.errors import InputError
from ser_plugins.evaluation.evaluate import evaluate
from ser_plugins.evaluation.page import NAMES, measure
from ser_plugins.evaluation.protocol import N_FOLDS, UTTERANCES, reference
from ser_plugins.evaluation.results import finished_folds
from ser_plugins.evaluation.system import read_system
from ser_plugins.experiments.layout import ABSENT, Cell, Table
from ser_plugins.experiments.runs import Experiment, read_experiments
from ser_plugins.experiments.summary import CORPORA, systems
from ser_plugins.files import atomic_write

CARD = "card.yaml"
# Keys of a card and their types.
KEYS = {"system": str, "corpus": str, "speaker_normalised": bool, "pretraining": str, "source": str}
MEASURES = ("uar", "accuracy", "macro_f1", "ece")
COLUMNS = ["system", *(NAMES[key] for key in MEASURES), "pre-training", "record"]
Card = Mapping[str, Any]
# What the records call the sources of pre-trained weights, and what these are.
SOURCES = {
    "builtin": "`builtin:speakers`",
    "pretrained/campplus": "CAM++ of 3D-Speaker",
    "pretrained/whisper-base": "Whisper base",
    "results/mao_pretrain/speakers/1/encoder": "`mao_pretrain.yaml`",
}
KINDS = {False: "speaker-independent", True: "speaker-normalised"}
HEAD = """\
# Leaderboard

Systems on the [protocol](protocol.md): ten folds, no speaker in two parts of a fold. The figures are in percent, pooled
over all utterances, with 95 % bootstrap intervals over actors. Systems are in the order of their UAR.
Speaker-normalised systems use all unlabelled utterances of a test speaker. The others see one utterance at a time.

`python recipes/experiments.py leaderboard` writes this page from the predictions in `results_records/`; a record is a
folder there. [Systems](#systems) says what each one of this project is.
[How to submit](evaluation.md#submit-to-the-leaderboard) a system.
"""
NONE = "No system yet."


def write_leaderboard(records: Path, output: Path) -> Path:
    """Evaluate all records, and write the leaderboard as Markdown."""
    atomic_write(output, leaderboard(records))
    return output


def leaderboard(records: Path) -> str:
    """Evaluate all records in a folder, and return the leaderboard as Markdown.

    Raises
    ------
    InputError
        If there is none, a card is incomplete, or predictions do not follow the protocol.
    """
    cards = {file.parent: read_card(file.parent / CARD) for file in sorted(records.glob("*/predictions.*"))}
    experiments = read_experiments(records) if finished_folds(records, "**/fold*") else []
    cards |= own_cards(experiments)
    if not cards:
        raise InputError(f"{records} has no folder with predictions.csv; give the folder of the records")
    found = [{**_evaluate(folder, card), "record": folder.relative_to(records)} for folder, card in cards.items()]
    parts = [_table(found, corpus, kind) for corpus in UTTERANCES for kind in KINDS]
    if experiments:
        parts += ["## Systems\n", systems(experiments)]
    return "\n".join([HEAD, *parts]).rstrip("\n") + "\n"


def own_cards(experiments: Sequence[Experiment]) -> dict[Path, Card]:
    """Make the cards of the recorded experiments that have all ten folds of a corpus, by their folders."""
    found = [one for one in experiments if one.corpus in UTTERANCES and not one.overlaps]
    whole = [one for one in found if len(one.runs) == N_FOLDS]
    return {
        one.folder: {
            **{"system": one.strategy, "corpus": one.corpus, "speaker_normalised": one.normalizes_by_speaker},
            "pretraining": _pretraining(one),
        }
        for one in whole
    }


def _pretraining(experiment: Experiment) -> str:
    """Name the sources of the pre-trained weights of an experiment."""
    sources = str(experiment.runs[0].metrics["pretrained_encoder"] or "none").replace("fold1", "fold{fold}")
    return ", ".join(SOURCES.get(source, source) for source in sources.split(", "))


def _evaluate(folder: Path, card: Card) -> dict[str, Any]:
    corpus = reference(card["corpus"])
    return {**evaluate(read_system([folder], corpus), corpus), **card}


def read_card(file: Path) -> Card:
    """Read and check the card of a system.

    Example
    -------
    >>> file = getfixture("tmp_path") / "card.yaml"
    >>> _ = file.write_text("system: ours")
    >>> read_card(file)
    Traceback (most recent call last):
    ser_plugins.errors.InputError: ... lacks corpus, speaker_normalised, pretraining, source; add it
    """
    try:
        card = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{file.parent} has predictions and no {CARD}; write one, with {', '.join(KEYS)}") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{file} is no YAML; write {', '.join(KEYS)}, one per line") from error
    if not isinstance(card, dict) or (missing := [key for key in KEYS if key not in card]):
        lacking = ", ".join(missing if isinstance(card, dict) else KEYS)
        raise InputError(f"{file} lacks {lacking}; add it")
    for key, value in card.items():
        if key not in KEYS:
            raise InputError(f"{file}: there is no key {key}; give {', '.join(KEYS)}")
        if not isinstance(value, KEYS[key]):
            raise InputError(f"{file}: {key} is {value!r}; give {'true or false' if KEYS[key] is bool else 'text'}")
    if card["corpus"] not in UTTERANCES:
        raise InputError(f"{file}: corpus is {card['corpus']!r}; give {' or '.join(UTTERANCES)}")
    return card


def _table(records: Sequence[Card], corpus: str, normalised: bool) -> str:
    chosen = [one for one in records if (one["corpus"], one["speaker_normalised"]) == (corpus, normalised)]
    title = f"{CORPORA[corpus]}, {KINDS[normalised]}"
    if not chosen:
        return f"## {title}\n\n{NONE}\n"
    ranked = sorted(chosen, key=lambda one: -one["uar"]["value"])
    return Table(title, COLUMNS, [_row(one) for one in ranked]).markdown()


def _row(one: Card) -> list[Cell]:
    values = [measure(one[key], key) if key in one else ABSENT for key in MEASURES]
    return [Cell(text) for text in (one["system"], *values, one["pretraining"], f"`{one['record']}`")]
