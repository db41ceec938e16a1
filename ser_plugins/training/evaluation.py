"""Embeddings and predictions of a part of a corpus."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataloader import SaveableDataLoader
from torch import Tensor
from tqdm import tqdm

from ser_plugins.corpora.corpus import Corpus
from ser_plugins.training.brain import EncoderBrain
from ser_plugins.training.data import by_length, make_dataset


def embed(brain: EncoderBrain, table: pd.DataFrame, classes: Sequence[str], batch_size: int = 32) -> Tensor:
    """Embed whole utterances: [N, 1, E] on the CPU, in the order of ``table``."""
    dataset = make_dataset(by_length(table), "emotion", classes)  # from files: each is read once
    loader = SaveableDataLoader(dataset, batch_size=batch_size, collate_fn=PaddedBatch)
    ids, embeddings = brain.embed(tqdm(loader, desc="embedding", leave=False, disable=None))
    found = dict(zip(ids, embeddings.cpu(), strict=True))
    return torch.stack([found[str(name)] for name in table["id"]])


def embed_augmented(
    brain: EncoderBrain, table: pd.DataFrame, classes: Sequence[str], passes: int, batch_size: int = 32
) -> tuple[Tensor, Tensor]:
    """Embed the crops and augmented copies of utterances that training makes, several times, in evaluation mode.

    Returns
    -------
    embeddings : torch.Tensor
        [N, 1, E], on the CPU.
    rows : torch.Tensor
        The row of ``table`` that each is from, [N].
    """
    dataset = make_dataset(table, "emotion", classes, brain.hparams.crop_seconds)
    loader = SaveableDataLoader(dataset, batch_size=batch_size, collate_fn=PaddedBatch)
    row = {str(name): i for i, name in enumerate(table["id"])}
    rows: list[int] = []
    embeddings = []
    for step in range(passes):
        brain.seed(step)
        ids, found = brain.embed(tqdm(loader, desc="embedding augmented", leave=False, disable=None), augment=True)
        rows += [row[name] for name in ids]
        embeddings.append(found.cpu())
    return torch.cat(embeddings), torch.tensor(rows)


def predictions(
    table: pd.DataFrame, scores: Tensor, classes: Sequence[str], corpora: Sequence[Corpus] = ()
) -> pd.DataFrame:
    """Make a table of log-probabilities [N, 1, C] and the most probable label of each utterance.

    Of merged corpora, an utterance can only be predicted to be what its own corpus has: none of CREMA-D is calm. The
    log-probabilities stay those of all classes.
    """
    named = ["corpus"] if corpora else []
    frame = table[["id", "speaker", "emotion", *named]].reset_index(drop=True)
    frame["predicted"] = [classes[i] for i in scores.squeeze(1).argmax(-1).tolist()]
    columns = pd.DataFrame(np.asarray(scores.squeeze(1), dtype=np.float64), columns=list(classes))
    for corpus in corpora:
        rows = frame["corpus"] == corpus.name
        frame.loc[rows, "predicted"] = columns.loc[rows, list(corpus.labels)].idxmax(axis=1)
    return pd.concat([frame, columns], axis=1)
