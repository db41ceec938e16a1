"""Prepared audio as SpeechBrain datasets."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from torch import Tensor
from tqdm import tqdm

from ser_plugins.audio.spectrogram import SpectrogramNorm

SAMPLE_RATE = 16000


def crop(signal: np.ndarray[Any, Any], samples: int, where: float) -> np.ndarray[Any, Any]:
    """Cut ``samples`` samples, ``where`` (0 … 1) they fit; a shorter clip is repeated first."""
    if len(signal) < samples:
        signal = np.tile(signal, -(-samples // len(signal)))
    start = int(where * (len(signal) - samples + 1))
    return signal[start : start + samples]


def make_dataset(
    table: pd.DataFrame, column: str, classes: Sequence[str], crop_seconds: float | None = None
) -> DynamicItemDataset:
    """Make a dataset of ``id``, ``speaker``, ``signal`` [T] and ``label`` [1], and of ``voice`` [F + 1] where known.

    Parameters
    ----------
    table : pandas.DataFrame
        One row an utterance: ``id``, ``speaker``, ``prepared`` (a .npy file of 16 kHz samples), ``column``, and
        ``voice`` where `with_voices` has added it.
    column : str
        What is to be recognised: "emotion" or "speaker".
    classes : sequence of str
        Its values, in the order of their indices.
    crop_seconds : float, optional
        Length of random crops; whole utterances where not given.
    """
    index = {name: i for i, name in enumerate(classes)}
    rows = {
        str(row["id"]): {
            "path": str(row["prepared"]),
            "target": index[row[column]],
            "speaker": str(row["speaker"]),
            "voice": row.get("voice"),
        }
        for row in table.to_dict("records")
    }

    def signal(path: str) -> Tensor:
        samples = np.load(path)  # all of it: to map a file takes longer than to read an utterance
        if crop_seconds is not None:
            samples = crop(samples, round(crop_seconds * SAMPLE_RATE), float(torch.rand(())))
        return torch.from_numpy(samples)

    dataset = DynamicItemDataset(rows)
    dataset.add_dynamic_item(signal, takes="path", provides="signal")
    dataset.add_dynamic_item(lambda target: torch.tensor([target]), takes="target", provides="label")
    dataset.set_output_keys(["id", "speaker", "signal", "label", *({"voice"} & set(table.columns))])
    return dataset


def by_length(table: pd.DataFrame) -> pd.DataFrame:
    """Sort utterances by the size of their audio, so that batches hold little padding."""
    sizes = [os.path.getsize(path) for path in table["prepared"]]
    return table.assign(size=sizes).sort_values("size", kind="stable").drop(columns="size")


def with_voices(table: pd.DataFrame, compute_features: Callable[[Tensor], Tensor]) -> pd.DataFrame:
    """Add the column ``voice``: what `SpectrogramNorm.measure` finds of each speaker, over all that the table has."""
    voices = {
        speaker: SpectrogramNorm.measure(compute_features(torch.from_numpy(np.load(path))[None]) for path in paths)
        for speaker, paths in tqdm(table.groupby("speaker")["prepared"], desc="measuring voices", leave=False)
    }
    return table.assign(voice=table["speaker"].map(voices))
