"""Predictions of a labelled corpus by models: of the speakers that they do not know, as recorded and distorted."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ser_plugins.audio.reading import SAMPLE_RATE, Samples
from ser_plugins.audio.speech import SpeechNormalizer, convert_file, join
from ser_plugins.corpora import Table, cremad, ravdess
from ser_plugins.corpora.files import find_utterances
from ser_plugins.corpora.folds import valid_block
from ser_plugins.errors import InputError
from ser_plugins.evaluation.distortions import Distortion
from ser_plugins.evaluation.files import named, read_table
from ser_plugins.evaluation.protocol import GROUPS, N_FOLDS, UTTERANCES, Reference, reference
from ser_plugins.evaluation.system import System
from ser_plugins.inference.batches import NOT_FINITE, classify, embed_speech, select_labels
from ser_plugins.inference.speaker import measure_speaker, normalizes_by_speaker
from ser_plugins.model_folder.config import read_config
from ser_plugins.model_folder.layout import CONFIG, WEIGHTS
from ser_plugins.model_folder.lineage import (
    LINEAGE,
    Lineage,
    Training,
    heard_speakers,
    read_trainings,
    tells_speakers,
    validated_speakers,
)
from ser_plugins.model_folder.plain import PlainModel, load_plain
from ser_plugins.model_folder.source import find_folder

RECORDED = "as recorded"
TOGETHER = 128  # utterances of a speaker in memory; a speaker-normalised model needs all of them
CROWD = 24  # recordings that babble is made of


@dataclass(frozen=True)
class Member:
    """A model that predicts a corpus.

    Parameters
    ----------
    source : str
        Its folder or name.
    model : PlainModel
        The model.
    lineage : tuple of Training
        Its trainings, first one first.
    network : str
        Digest of what makes embeddings; models that differ in the classifier alone share them.
    """

    source: str
    model: PlainModel
    lineage: Lineage
    network: str

    def known_speakers(self, corpus: Reference) -> set[str]:
        """Return the speakers that the model was trained on, and those that its trainings were validated on."""
        known = heard_speakers(self.lineage, corpus.name, corpus.table["speaker"].unique())
        return known.union(*(_validated(training, corpus) for training in self.lineage))


def _validated(training: Training, corpus: Reference) -> set[str]:
    """Return the speakers of the validation part, as recorded; earlier versions recorded the fold alone."""
    table = corpus.table
    if training.valid_speakers:
        return validated_speakers(training, corpus.name, table["speaker"].unique())
    if not training.fold or corpus.name not in training.corpus.split("+") or "block" not in table:
        return set()
    # Of RAVDESS and CREMA-D, not all blocks may be there.
    n_folds = N_FOLDS if corpus.name in UTTERANCES else int(table["block"].max())
    return set(table["speaker"][table["block"] == valid_block(training.fold, n_folds)])


class Predicted(NamedTuple):
    """Predictions of a corpus by models.

    Parameters
    ----------
    reference : Reference
        The utterances that were predicted, with the emotions that the models know.
    systems : dict of str to System
        Predictions by the name of the distortion; the first ones are of the recordings as they are.
    notes : list of str
        What was left out, and what the models do not say.
    checksums : list of str
        SHA-256 of each model, see `ser_plugins.model_folder.plain.Parts`.
    """

    reference: Reference
    systems: dict[str, System]
    notes: list[str]
    checksums: list[str]


def read_member(source: str | Path) -> Member:
    """Load a model folder, a model on the Hub or a built-in one, with its lineage."""
    folder = find_folder(source, [CONFIG, WEIGHTS, LINEAGE])
    model = load_plain(folder)
    modules = {key: value for key, value in read_config(folder / CONFIG)["modules"].items() if key != "classifier"}
    digest = hashlib.sha256(json.dumps(modules, sort_keys=True).encode())
    for name, weight in model.mods["embedding_model"].state_dict().items():
        digest.update(name.encode() + weight.cpu().numpy().tobytes())
    return Member(str(source), model, read_trainings(folder / LINEAGE), digest.hexdigest())


def find_corpus(name: str, data_folder: str | Path) -> tuple[Reference, list[str]]:
    """Find the audio of a corpus.

    Parameters
    ----------
    name : {"ravdess", "cremad", "table"}
        The corpus.
    data_folder : str or pathlib.Path
        Folder of its .wav files, or the table, see `ser_plugins.corpora.Table`.

    Returns
    -------
    Reference
        Its utterances with a column ``path``.
    list of str
        A note if some have no file.

    Raises
    ------
    InputError
        If there is no such folder or table, or no file of the corpus in it.
    """
    if name == "table":
        return _find_table(Path(data_folder)), []
    whole = reference(name)
    former = {"ravdess": None, "cremad": cremad.FORMER}[name]
    stems = {"ravdess": ravdess.file_stems, "cremad": cremad.file_stems}[name]()
    paths, _ = find_utterances(name, data_folder, stems, allow_incomplete=True, former=former)
    table = whole.table.assign(path=whole.table["id"].map(paths)).dropna(subset="path")
    missing = len(whole.table) - len(table)
    notes = [f"{missing} of {len(whole.table)} utterances have no file below {data_folder}."] if missing else []
    return Reference(name, whole.labels, table), notes


def _find_table(file: Path) -> Reference:
    corpus = Table(str(file)).read()
    table = corpus.table.drop(columns="fault").rename(columns={"fold": "block"})
    raw = read_table(file)
    groups = raw[[name for name in GROUPS if name in raw]].assign(path=[str(file.parent / one) for one in raw["path"]])
    return Reference("table", corpus.labels, table.merge(groups.drop_duplicates("path"), on="path"))


def babble_crowd(corpus: Reference) -> list[Samples]:
    """Read recordings that are spread over the corpus, to make babble of."""
    rows = np.unique(np.linspace(0, len(corpus.table) - 1, CROWD).round().astype(int))
    normalizer = SpeechNormalizer("none")
    return [convert_file(path, normalizer).numpy() for path in corpus.table["path"].iloc[rows]]


def predict_corpus(
    sources: Sequence[str | Path], corpus: Reference, distortions: Mapping[str, Distortion] | None = None, seed: int = 1
) -> Predicted:
    """Predict the utterances of a corpus whose speakers and emotions the models allow.

    A model predicts no speaker that it was trained or validated on. Each utterance
    is predicted by the mean of the probabilities of the models that are left. Emotions that a model does not know are
    left out, and so are those of the model that the corpus does not have: the other probabilities are renormalised. A
    speaker-normalised model gets statistics over the utterances of each speaker that are predicted.

    Parameters
    ----------
    sources : sequence of path
        Model folders, models on the Hub, or built-in ones; of several, often one per fold.
    corpus : Reference
        As `find_corpus` returns it.
    distortions : mapping, optional
        Distortions by name; each recording is also predicted with each of them, before silence is removed.
    seed : int
        Seed of the distortions. Those of an utterance do not depend on the other utterances.

    Raises
    ------
    InputError
        If the models have different emotions, fewer than two of those of the corpus, or know all speakers.
    """
    members = [read_member(source) for source in dict.fromkeys(sources)]
    labels = _common_labels(members, corpus)
    known = [one.known_speakers(corpus) for one in members]
    left_out = corpus.table["speaker"].isin(set.intersection(*known))
    if left_out.all():
        raise InputError(
            f"{named(one.source for one in members)} knows all speakers of {corpus.name}, by its lineage; "
            "give a model of another fold or corpus"
        )
    other = ~corpus.table["emotion"].isin(labels) & ~left_out
    part = Reference(corpus.name, labels, corpus.table[~left_out & ~other].reset_index(drop=True))
    allowed = {
        speaker: [one for one, own in zip(members, known, strict=True) if speaker not in own]
        for speaker in part.table["speaker"].unique()
    }
    found = _predict(part, allowed, {RECORDED: None, **(distortions or {})}, seed)
    name = members[0].source if len(members) == 1 else f"{members[0].source} … ({len(members)} models)"
    systems = {key: _system(name, part, values) for key, values in found.items()}
    notes = _notes(members, corpus, left_out, other)
    return Predicted(part, systems, notes, [one.model.checksum for one in members])


def _predict(
    part: Reference, allowed: Mapping[str, list[Member]], distortions: Mapping[str, Distortion | None], seed: int
) -> dict[str, NDArray[np.float64]]:
    """Return the probabilities [N, C] with each distortion; each recording is read once."""
    table = part.table
    found = {name: np.zeros((len(table), len(part.labels))) for name in distortions}
    with tqdm(total=len(table) * len(found), unit="utterance", desc=part.name) as progress:
        for rows, members in _groups(table, allowed):
            normalizer = members[0].model.audio_normalizer
            signals = {table["id"].iloc[i]: convert_file(table["path"].iloc[i], normalizer) for i in rows}
            for name, distort in distortions.items():
                taken = [_distorted(signal, one, distort, seed) for one, signal in signals.items()]
                found[name][rows] = _probabilities(members, taken, part.labels)
                progress.update(len(rows))
    return found


def _common_labels(members: Sequence[Member], corpus: Reference) -> tuple[str, ...]:
    """Return the emotions of the corpus that the models have."""
    own = [set(select_labels(one.model, None)[0]) for one in members]
    for member, has in zip(members, own, strict=True):
        if has != own[0]:
            raise InputError(f"{member.source} has other emotions than {members[0].source}; evaluate them one by one")
    common = tuple(one for one in corpus.labels if one in own[0])
    if len(common) < 2:
        raise InputError(
            f"{members[0].source} knows {len(common)} of the emotions of {corpus.name}, {', '.join(corpus.labels)}; "
            f"it has {', '.join(sorted(own[0]))}"
        )
    return common


def _notes(members: Sequence[Member], corpus: Reference, known: pd.Series[bool], other: pd.Series[bool]) -> list[str]:
    notes = []
    if known.any():
        count = corpus.table["speaker"][known].nunique()
        notes.append(
            f"{int(known.sum())} utterances of {count} speaker(s) that were trained or validated on are left out."
        )
    if other.any():
        names = ", ".join(dict.fromkeys(corpus.table["emotion"][other]))
        notes.append(f"{int(other.sum())} utterances of emotions that the model does not have are left out: {names}.")
    if unsaid := [one.source for one in members if not tells_speakers(one.lineage, corpus.name)]:
        notes.append(f"{named(unsaid)} does not record all training speakers: it may know speakers of {corpus.name}.")
    if any(normalizes_by_speaker(one.model) for one in members):
        notes.append("Speaker-normalised, by all unlabelled utterances of a speaker that are predicted.")
    return notes


def _groups(
    table: pd.DataFrame, allowed: Mapping[str, list[Member]]
) -> Iterator[tuple[NDArray[np.intp], list[Member]]]:
    """Yield rows of one speaker and the models that predict them."""
    for speaker, members in allowed.items():
        rows = np.flatnonzero(table["speaker"] == speaker)
        size = len(rows) if any(normalizes_by_speaker(one.model) for one in members) else TOGETHER
        for start in range(0, len(rows), size):
            yield rows[start : start + size], members


def _distorted(signal: Tensor, name: str, distort: Distortion | None, seed: int) -> Tensor:
    if distort is None:
        return signal
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return torch.from_numpy(distort(signal.numpy(), SAMPLE_RATE, generator))


@torch.no_grad()
def _probabilities(members: Sequence[Member], signals: Sequence[Tensor], labels: Sequence[str]) -> NDArray[np.float64]:
    """Return the mean of the models' probabilities [N, C] for all utterances of one speaker."""
    speech: dict[str, list[Tensor]] = {}
    embeddings: dict[str, Tensor] = {}
    total = torch.zeros(len(signals), len(labels), dtype=torch.float64)
    for one in members:
        normalizer = one.model.audio_normalizer
        if normalizer.vad not in speech:
            segments = normalizer.find_speech(signals)
            speech[normalizer.vad] = [join(*pair) for pair in zip(signals, segments, strict=True)]
        if one.network not in embeddings:
            embeddings[one.network] = _embed(one.model, speech[normalizer.vad])
        total += classify(one.model, embeddings[one.network], select_labels(one.model, labels)[1])
    return (total / len(members)).numpy()


def _embed(model: PlainModel, speech: Sequence[Tensor]) -> Tensor:
    if not normalizes_by_speaker(model):
        return embed_speech(model, speech)
    features = [model.mods["compute_features"](one[None].to(model.device)) for one in speech]
    return embed_speech(model, speech, speaker=measure_speaker(model, features))


def _system(name: str, part: Reference, values: NDArray[np.float64]) -> System:
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        raise InputError(f"{part.table['path'].iloc[int(finite.argmin())]}: {NOT_FINITE}")
    predicted = [part.labels[i] for i in values.argmax(axis=1)]
    return System(name, part.table.drop(columns="path").assign(predicted=predicted), values)
