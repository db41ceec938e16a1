"""Prepared audio as SpeechBrain datasets."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from speechbrain.dataio.batch import PaddedBatch, PaddedData
from speechbrain.dataio.dataloader import SaveableDataLoader
from speechbrain.dataio.dataset import DynamicItemDataset
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from ser_plugins.audio.spectrogram import SpectrogramNorm

SAMPLE_RATE = 16000
MOST_HELD = 0.25  # share of a GPU's free memory that a part's audio may take


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


class HeldBatch(SimpleNamespace):
    """What a ``PaddedBatch`` of the same utterances has, on the device already."""

    def to(self, *_: Any) -> HeldBatch:
        """Stay where it is."""
        return self


class HeldDataset(Dataset[Any]):
    """Utterances that a device holds, and that batches are cut of there; a batch is that of `make_dataset`.

    Parameters
    ----------
    dataset : DynamicItemDataset
        Whole utterances, by `make_dataset`.
    device : torch.device or str
        Where they are to lie.
    crop_seconds : float, optional
        Length of random crops; whole utterances where not given.
    """

    def __init__(self, dataset: Any, device: torch.device | str, crop_seconds: float | None = None) -> None:
        items, signals = [], []
        for item in tqdm(dataset, desc="reading audio", leave=False):
            signals.append(item.pop("signal").to(device))  # at once: not all of it in the processor's memory, too
            items.append(item)
        sizes = torch.tensor(list(map(len, signals)))
        self.samples = torch.cat(signals)
        self.sizes, self.starts = sizes.to(device), (sizes.cumsum(0) - sizes).to(device)
        self.lengths = sizes.tolist()
        self.names = [(item["id"], item["speaker"]) for item in items]
        keys = [key for key in ("label", "voice") if key in items[0]]
        self.values = {key: torch.stack([item[key] for item in items]).to(device) for key in keys}
        self.crop_samples = None if crop_seconds is None else round(crop_seconds * SAMPLE_RATE)

    def __len__(self) -> int:
        """Utterances."""
        return len(self.names)

    def __getitems__(self, indices: Sequence[int]) -> HeldBatch:
        """Cut a batch, padded with zeros at the end, or cropped where `crop` would."""
        device = self.samples.device
        chosen = torch.tensor(indices, device=device)
        sizes, starts = self.sizes[chosen].unsqueeze(1), self.starts[chosen].unsqueeze(1)
        if self.crop_samples is None:
            most = max(self.lengths[i] for i in indices)
            places = torch.arange(most, device=device).expand(len(chosen), -1)
            signal = self.samples[starts + places.minimum(sizes - 1)] * (places < sizes)
            lengths = (sizes / most).squeeze(1)
        else:
            where = torch.rand(len(chosen)).to(device, torch.float64).unsqueeze(1)
            repeated = sizes * -(-self.crop_samples // sizes)  # where it is as long, once
            first = (where * (repeated - self.crop_samples + 1)).long()
            places = (first + torch.arange(self.crop_samples, device=device)) % sizes
            signal, lengths = self.samples[starts + places], torch.ones(len(chosen), device=device)
        ids, speakers = map(list, zip(*(self.names[i] for i in indices), strict=True))
        values = {key: PaddedData(value[chosen], torch.ones_like(lengths)) for key, value in self.values.items()}
        return HeldBatch(id=ids, speaker=speakers, signal=PaddedData(signal, lengths), **values)


def make_loader(
    table: pd.DataFrame,
    column: str,
    classes: Sequence[str],
    device: torch.device | str,
    crop_seconds: float | None = None,
    **options: Any,
) -> SaveableDataLoader:
    """Loader of `make_dataset`; a GPU with enough memory is given all samples once, and waits for no file.

    ``options`` are those of PyTorch's ``DataLoader``: ``batch_size`` or ``batch_sampler``.
    """
    if torch.device(device).type != "cuda" or _size(table) > MOST_HELD * torch.cuda.mem_get_info(device)[0]:
        return SaveableDataLoader(make_dataset(table, column, classes, crop_seconds), collate_fn=PaddedBatch, **options)
    dataset = HeldDataset(make_dataset(table, column, classes), device, crop_seconds)
    return SaveableDataLoader(dataset, collate_fn=_as_it_is, **options)


def _size(table: pd.DataFrame) -> int:
    return sum(map(os.path.getsize, table["prepared"]))


def _as_it_is(batch: HeldBatch) -> HeldBatch:
    return batch


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
