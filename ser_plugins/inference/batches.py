"""Batches of like length, and what a model makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from speechbrain.inference.classifiers import EncoderClassifier
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ser_plugins.errors import InputError

BATCH_SIZE, BATCH_SECONDS = 16, 60.0  # more is no faster on a CPU: it leaves the cache
NOT_FINITE = "the model's result is NaN or infinite; its weights are damaged, or the audio is"
WINDOW_FILES, WINDOW_SECONDS = 256, 1800.0


def pack(seconds: Sequence[float], most_seconds: float = BATCH_SECONDS, most: int = BATCH_SIZE) -> list[list[int]]:
    """Put utterances of like length together.

    Parameters
    ----------
    seconds : sequence of float
        Length of each.
    most_seconds : float
        Seconds of a batch at most, padding included; one that is longer stays alone.
    most : int
        Utterances of a batch at most.

    Returns
    -------
    list of list of int
        Each utterance once, the longest first: what does not fit into memory fails soon.

    Example
    -------
    >>> pack([1.0, 3.0, 1.5, 9.0], most_seconds=6)
    [[3], [1, 2], [0]]
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(seconds)), key=lambda row: -seconds[row]):
        if batches and len(batches[-1]) < most and (len(batches[-1]) + 1) * seconds[batches[-1][0]] <= most_seconds:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def windows(seconds: Sequence[float]) -> Iterator[range]:
    """Cut a list of files into pieces that are read, sorted and kept at a time; memory is that of one.

    Example
    -------
    >>> list(windows([1000.0, 700.0, 200.0]))
    [range(0, 2), range(2, 3)]
    """
    start, total = 0, 0.0
    for row, length in enumerate(seconds):
        if row > start and (row - start == WINDOW_FILES or total + length > WINDOW_SECONDS):
            yield range(start, row)
            start, total = row, 0.0
        total += length
    if start < len(seconds):
        yield range(start, len(seconds))


@torch.no_grad()
def embed_speech(model: EncoderClassifier, speech: Sequence[Tensor], batch_seconds: float = BATCH_SECONDS) -> Tensor:
    """Embed utterances, samples [T] each, in batches of like length: [N, E] on the CPU, in their order."""
    found: dict[int, Tensor] = {}
    rate = model.hparams.audio_normalizer.sample_rate
    for batch in pack([len(one) / rate for one in speech], batch_seconds):
        signals = [speech[row] for row in batch]
        lengths = torch.tensor([len(signal) / len(signals[0]) for signal in signals])
        embeddings = model.encode_batch(pad_sequence(signals, batch_first=True), lengths)
        found.update(zip(batch, embeddings.squeeze(1).float().cpu(), strict=True))
    return torch.stack([found[row] for row in range(len(speech))])


@torch.no_grad()
def classify(model: EncoderClassifier, embeddings: Tensor, columns: Sequence[int]) -> Tensor:
    """Probabilities [N, C] of some classes of embeddings [N, E], as if there were no others, on the CPU."""
    scores: Tensor = model.mods.classifier(embeddings.unsqueeze(1).to(model.device)).squeeze(1)
    return scores[:, list(columns)].double().softmax(1).cpu()


def choose_labels(model: Any, labels: Sequence[str] | None) -> tuple[list[str], list[int]]:
    """Return the labels to tell apart and their classes: all that the model knows, or those named.

    Raises
    ------
    InputError
        If the model does not know a label; the message names those that it knows.
    """
    encoder = model.hparams.label_encoder
    known = [str(encoder.ind2lab[index]) for index in range(len(encoder))]
    chosen = known if labels is None else list(dict.fromkeys(labels))
    unknown = [label for label in chosen if label not in known]
    if unknown or not chosen:
        raise InputError(f"the model knows no label {', '.join(unknown)!r}; it knows {', '.join(known)}")
    return chosen, [known.index(label) for label in chosen]
