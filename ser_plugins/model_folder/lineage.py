"""Lineage of a model: the trainings that led to its weights, identified by content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ser_plugins.errors import InputError
from ser_plugins.files import atomic_write

LINEAGE = "lineage.json"
NO_PRETRAINING = "none"
ENROLMENT = "enrolment"  # strategy of an adaptation to one person
OWN_SPEAKERS = "speakers of the training part"  # the initial weights of S2 in earlier versions


@dataclass(frozen=True)
class Training:
    """One training of a lineage.

    Parameters
    ----------
    run_id : str
        Identifier of the run.
    strategy, corpus : str
        As in its ``metrics.json``.
    fold : int or None
        Fold of a cross-validation; None of a pre-training.
    seed : int
        Its seed.
    sha256 : str
        SHA-256 of the file of encoder weights that it left.
    start : str
        Source of its initial weights, as given: "none", a folder, a Hub id or a built-in name.
    utterances : int
        Training utterances.
    speakers : tuple of str
        Keys of the speakers that it was trained on, as `speaker_keys` makes them.
    licence : str
        Licence of the corpus.
    synthetic : bool
        True where the corpus is synthetic.
    commit : str or None
        Commit of the package.
    about : str
        Of weights that were converted: source, authors and licence, in a sentence.
    valid_speakers : tuple of str
        Keys of the speakers that it was validated on, whatever the number of folds and the split; empty of a
        pre-training, and where an earlier version wrote the record.
    """

    run_id: str
    strategy: str
    corpus: str
    fold: int | None
    seed: int
    sha256: str
    start: str = NO_PRETRAINING
    utterances: int = 0
    speakers: tuple[str, ...] = ()
    licence: str = "unknown"
    synthetic: bool = False
    commit: str | None = None
    about: str = ""
    valid_speakers: tuple[str, ...] = ()

    @classmethod
    def of_run(
        cls,
        metrics: Mapping[str, Any],
        weights: Path,
        speakers: Iterable[str],
        about: str = "",
        valid_speakers: Iterable[str] = (),
    ) -> Training:
        """Record the run of ``metrics``, which left the file ``weights`` and was trained on ``speakers``."""
        return cls(
            **{key: metrics[key] for key in ("run_id", "strategy", "corpus", "seed", "synthetic", "commit")},
            fold=metrics.get("fold"),
            licence=metrics.get("licence", "unknown"),
            sha256=file_sha256(weights),
            start=metrics["pretrained_encoder"],
            utterances=metrics["n_train"],
            speakers=speaker_keys(speakers),
            about=about,
            valid_speakers=speaker_keys(valid_speakers),
        )


Lineage = tuple[Training, ...]


def speaker_keys(names: Iterable[str]) -> tuple[str, ...]:
    """Make keys of speakers that compare equal where ``<corpus>-<speaker>`` does, and show no name.

    Example
    -------
    >>> speaker_keys(["ravdess-01"])
    ('64fc2b9b9ac2',)
    """
    return tuple(hashlib.sha256(name.encode()).hexdigest()[:12] for name in dict.fromkeys(names))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_lineage(folder: Path, lineage: Sequence[Training]) -> None:
    """Write ``lineage.json`` into a model folder, first training first."""
    atomic_write(folder / LINEAGE, json.dumps([asdict(one) for one in lineage], indent=1) + "\n")


def read_lineage(weights: Path) -> Lineage:
    """Read the trainings that led to a file of weights, from ``lineage.json`` in its folder.

    Parameters
    ----------
    weights : pathlib.Path
        File of encoder weights in a model folder.

    Returns
    -------
    tuple of Training
        First training first; empty where the folder records none.

    Raises
    ------
    InputError
        If the file cannot be read, or records other weights.
    """
    file = weights.with_name(LINEAGE)
    lineage = read_trainings(file)
    if lineage and weights.is_file() and lineage[-1].sha256 != file_sha256(weights):
        raise InputError(f"{file} records other weights than {weights.name}; export the model folder again")
    return lineage


def read_trainings(file: Path) -> Lineage:
    """Read a ``lineage.json``, first training first; empty where there is no such file.

    Raises
    ------
    InputError
        If the file is no lineage.
    """
    if not file.is_file():
        return ()
    try:
        records = json.loads(file.read_text(encoding="utf-8"))
        return tuple(_training(one) for one in records)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{file} is no lineage; export the model folder again") from error


def _training(record: Mapping[str, Any]) -> Training:
    keys = {"speakers": record["speakers"], "valid_speakers": record.get("valid_speakers", ())}
    return Training(**{**record, **{name: tuple(values) for name, values in keys.items()}})


def heard_speakers(lineage: Lineage, corpus: str, speakers: Iterable[str]) -> set[str]:
    """Return which speakers of a corpus a training of a lineage heard.

    Example
    -------
    >>> one = Training("run", "S1", "ravdess", 1, 1, "", speakers=speaker_keys(["ravdess-01"]))
    >>> heard_speakers((one,), "ravdess", ["01", "02"])
    {'01'}
    """
    heard = {key for training in lineage for key in training.speakers}
    return _with_keys(heard, corpus, speakers)


def validated_speakers(training: Training, corpus: str, speakers: Iterable[str]) -> set[str]:
    """Return which speakers of a corpus a training was validated on, as far as it records them.

    Example
    -------
    >>> one = Training("run", "S1", "ravdess", 1, 1, "", valid_speakers=speaker_keys(["ravdess-05"]))
    >>> validated_speakers(one, "ravdess", ["01", "05"])
    {'05'}
    """
    return _with_keys(training.valid_speakers, corpus, speakers)


def _with_keys(keys: Collection[str], corpus: str, speakers: Iterable[str]) -> set[str]:
    return {one for one in speakers if speaker_keys([f"{corpus}-{one}"])[0] in keys}


def tells_speakers(lineage: Lineage, corpus: str) -> bool:
    """Return whether a lineage says which speakers of a corpus were heard: nothing in it has an unknown origin."""
    known_start = bool(lineage) and lineage[0].start in {NO_PRETRAINING, OWN_SPEAKERS}
    return known_start and all(_tells(one, corpus) for one in lineage)


def _tells(training: Training, corpus: str) -> bool:
    if training.strategy == ENROLMENT:  # a person of any corpus, named by the user's table alone
        return corpus == training.corpus and bool(training.speakers)
    return bool(training.speakers) or corpus not in training.corpus.split("+")


def check_unheard(lineage: Lineage, held_out: pd.DataFrame, source: str) -> None:
    """Stop where a training of a lineage heard speakers that a fold validates or tests on.

    Parameters
    ----------
    lineage : tuple of Training
        Trainings of the pre-trained encoder.
    held_out : pandas.DataFrame
        ``id`` and ``speaker`` of the utterances, each after its corpus' name and a hyphen.
    source : str
        Source of the encoder, for the message.

    Raises
    ------
    InputError
        If it did; the message says which training.
    """
    keys = {name: speaker_keys([name])[0] for name in held_out["speaker"].unique()}
    for training in lineage:
        heard = held_out["speaker"].map(keys).isin(training.speakers)
        if heard.any():
            fold = "" if training.fold is None else f", fold {training.fold}"
            raise InputError(
                f"the encoder {source} was trained on speakers of {int(heard.sum())} utterances that this fold "
                f"validates or tests on, as {held_out.loc[heard, 'id'].iloc[0]} ({training.strategy} on "
                f"{training.corpus}{fold}); give that of the same fold, …/fold{{fold}}/…, or one of another corpus"
            )
