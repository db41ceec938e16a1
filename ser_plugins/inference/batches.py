"""Batches of utterances of similar length, and their embeddings and probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ser_plugins.audio.speaker import SpeakerStatistics
from ser_plugins.errors import InputError
from ser_plugins.model_folder.forward import embed

if TYPE_CHECKING:
    from speechbrain.inference.classifiers import EncoderClassifier

BATCH_SIZE, BATCH_SECONDS = 16, 60.0  # larger ones are no faster on a CPU: they leave its cache
CHUNK_FILES, CHUNK_SECONDS = 256, 1800.0
NOT_FINITE = "the output of the model is not finite; check the recording for extreme values, and the model"


def make_batches(
    seconds: Sequence[float], max_seconds: float = BATCH_SECONDS, max_size: int = BATCH_SIZE
) -> list[list[int]]:
    """Group utterances of similar length into batches.

    Parameters
    ----------
    seconds : sequence of float
        Length of each utterance.
    max_seconds : float
        Largest length of a batch, padding included; a longer utterance is a batch of its own.
    max_size : int
        Largest number of utterances in a batch.

    Returns
    -------
    list of list of int
        Indices of the utterances, each once. The longest come first, so that a lack of memory shows early.

    Example
    -------
    >>> make_batches([1.0, 3.0, 1.5, 9.0], max_seconds=6)
    [[3], [1, 2], [0]]
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(seconds)), key=lambda row: -seconds[row]):
        longest = seconds[batches[-1][0]] if batches else 0.0
        if batches and len(batches[-1]) < max_size and (len(batches[-1]) + 1) * longest <= max_seconds:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def make_chunks(seconds: Sequence[float]) -> Iterator[range]:
    """Cut a list of files into chunks that are read, sorted by length and saved one after the other.

    Parameters
    ----------
    seconds : sequence of float
        Length of each file. A chunk has 256 files and 30 minutes at most, which bounds the memory.

    Example
    -------
    >>> list(make_chunks([1000.0, 700.0, 200.0]))
    [range(0, 2), range(2, 3)]
    """
    start, total = 0, 0.0
    for row, length in enumerate(seconds):
        if row > start and (row - start == CHUNK_FILES or total + length > CHUNK_SECONDS):
            yield range(start, row)
            start, total = row, 0.0
        total += length
    if start < len(seconds):
        yield range(start, len(seconds))


@torch.no_grad()
def embed_speech(
    model: EncoderClassifier,
    speech: Sequence[Tensor],
    batch_seconds: float = BATCH_SECONDS,
    speaker: SpeakerStatistics | None = None,
) -> Tensor:
    """Embed utterances in batches of similar length.

    Parameters
    ----------
    model : speechbrain.inference.classifiers.EncoderClassifier
        The model.
    speech : sequence of torch.Tensor
        Samples [T] of each utterance at the model's sample rate.
    batch_seconds : float
        Largest length of a batch in seconds, padding included.
    speaker : SpeakerStatistics, optional
        Statistics of the speaker of all utterances.

    Returns
    -------
    torch.Tensor
        Embeddings [N, E] on the CPU, in the order of the utterances.
    """
    found: dict[int, Tensor] = {}
    rate = model.hparams.audio_normalizer.sample_rate
    for batch in make_batches([len(one) / rate for one in speech], batch_seconds):
        signals = [speech[row] for row in batch]
        lengths = torch.tensor([len(signal) / len(signals[0]) for signal in signals], device=model.device)
        wavs = pad_sequence(signals, batch_first=True).to(model.device)
        found.update(zip(batch, embed(model.mods, wavs, lengths, speaker).squeeze(1).float().cpu(), strict=True))
    return torch.stack([found[row] for row in range(len(speech))])


@torch.no_grad()
def classify(model: EncoderClassifier, embeddings: Tensor, classes: Sequence[int]) -> Tensor:
    """Compute the probabilities [N, C] of some classes of embeddings [N, E], as if there were no other classes."""
    scores: Tensor = model.mods.classifier(embeddings.unsqueeze(1).to(model.device)).squeeze(1)
    return scores[:, list(classes)].double().softmax(1).cpu()


def select_labels(model: Any, labels: Sequence[str] | None) -> tuple[list[str], list[int]]:
    """Return labels and the indices of their classes: of all labels of the model, or of those given.

    Raises
    ------
    InputError
        If the model does not have a label; the message lists its labels.
    """
    encoder = model.hparams.label_encoder
    known = [str(encoder.ind2lab[index]) for index in range(len(encoder))]
    if not known:
        raise InputError("the model has no classes; use ser-plugins embed, or train a classifier on it")
    selected = known if labels is None else list(dict.fromkeys(labels))
    unknown = [label for label in selected if label not in known]
    if unknown or not selected:
        raise InputError(f"the model has no label {', '.join(unknown)!r}; it has {', '.join(known)}")
    return selected, [known.index(label) for label in selected]
