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

from ser_plugins.audio.reading import SAMPLE_RATE
from ser_plugins.audio.speaker import SpeakerStatistics
from ser_plugins.errors import InputError

MOST_RESIDENT = 0.25  # share of a GPU's free memory that a part's audio may take


def crop(signal: np.ndarray[Any, Any], samples: int, where: float) -> np.ndarray[Any, Any]:
    """Cut ``samples`` samples, ``where`` (0 … 1) they fit; a shorter clip is repeated first."""
    if len(signal) < samples:
        signal = np.tile(signal, -(-samples // len(signal)))
    start = int(where * (len(signal) - samples + 1))
    return signal[start : start + samples]


def check_crop(crop_seconds: float | None) -> None:
    """Raise an `InputError` where ``crop_seconds`` is no length."""
    number = isinstance(crop_seconds, int | float) and not isinstance(crop_seconds, bool) and crop_seconds > 0
    if not (crop_seconds is None or number):
        raise InputError(f"crop_seconds: {crop_seconds!r} is no length; give seconds above 0, or null for whole clips")


def make_dataset(
    table: pd.DataFrame, column: str, classes: Sequence[str], crop_seconds: float | None = None
) -> DynamicItemDataset:
    """Make a dataset of ``id``, ``speaker``, ``signal`` [T], ``label`` [1] and, if known, ``speaker_features`` [F + 1].

    Parameters
    ----------
    table : pandas.DataFrame
        One row an utterance: ``id``, ``speaker``, ``prepared`` (a .npy file of 16 kHz samples), ``column``, and
        ``speaker_features`` where `with_speaker_features` has added it.
    column : str
        Column of the class: "emotion" or "speaker".
    classes : sequence of str
        Its values, in the order of their indices.
    crop_seconds : float, optional
        Length of random crops; whole utterances where not given.
    """
    check_crop(crop_seconds)
    index = {name: i for i, name in enumerate(classes)}
    rows = {
        str(row["id"]): {
            "path": str(row["prepared"]),
            "target": index[row[column]],
            "speaker": str(row["speaker"]),
            "speaker_features": row.get("speaker_features"),
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
    dataset.set_output_keys(["id", "speaker", "signal", "label", *({"speaker_features"} & set(table.columns))])
    return dataset


class ResidentBatch(SimpleNamespace):
    """A batch that lies on the device already, with the attributes of a ``PaddedBatch``."""

    def to(self, *_: Any) -> ResidentBatch:
        """Return the batch itself."""
        return self


class ResidentDataset(Dataset[Any]):
    """Utterances that lie in the memory of a device, which cuts the batches there; items are those of `make_dataset`.

    Parameters
    ----------
    dataset : DynamicItemDataset
        Whole utterances, by `make_dataset`.
    device : torch.device or str
        The device.
    crop_seconds : float, optional
        Length of random crops; whole utterances where not given.
    """

    def __init__(self, dataset: Any, device: torch.device | str, crop_seconds: float | None = None) -> None:
        items, signals = [], []
        for item in tqdm(dataset, desc="reading audio", leave=False, disable=None):
            signals.append(item.pop("signal").to(device))  # at once: not all of it in the processor's memory, too
            items.append(item)
        sizes = torch.tensor(list(map(len, signals)))
        self.samples = torch.cat(signals)
        self.sizes, self.starts = sizes.to(device), (sizes.cumsum(0) - sizes).to(device)
        self.lengths = sizes.tolist()
        self.names = [(item["id"], item["speaker"]) for item in items]
        keys = [key for key in ("label", "speaker_features") if key in items[0]]
        self.values = {key: torch.stack([item[key] for item in items]).to(device) for key in keys}
        self.crop_samples = None if crop_seconds is None else round(crop_seconds * SAMPLE_RATE)

    def __len__(self) -> int:
        """Utterances."""
        return len(self.names)

    def __getitems__(self, indices: Sequence[int]) -> ResidentBatch:
        """Cut a batch, padded with zeros at the end, or cropped as `crop` does."""
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
        return ResidentBatch(id=ids, speaker=speakers, signal=PaddedData(signal, lengths), **values)


def make_loader(
    table: pd.DataFrame,
    column: str,
    classes: Sequence[str],
    device: torch.device | str,
    crop_seconds: float | None = None,
    **options: Any,
) -> SaveableDataLoader:
    """Make a loader of `make_dataset`; a GPU with enough memory gets all samples once and reads no file later.

    ``options`` are those of PyTorch's ``DataLoader``: ``batch_size`` or ``batch_sampler``.
    """
    if torch.device(device).type != "cuda" or _size(table) > MOST_RESIDENT * torch.cuda.mem_get_info(device)[0]:
        return SaveableDataLoader(make_dataset(table, column, classes, crop_seconds), collate_fn=PaddedBatch, **options)
    dataset = ResidentDataset(make_dataset(table, column, classes), device, crop_seconds)
    return SaveableDataLoader(dataset, collate_fn=_as_it_is, **options)


def _size(table: pd.DataFrame) -> int:
    return sum(map(os.path.getsize, table["prepared"]))


def _as_it_is(batch: ResidentBatch) -> ResidentBatch:
    return batch


def by_length(table: pd.DataFrame) -> pd.DataFrame:
    """Sort utterances by the size of their audio, so that batches hold little padding."""
    sizes = [os.path.getsize(path) for path in table["prepared"]]
    return table.assign(size=sizes).sort_values("size", kind="stable").drop(columns="size")


def with_speaker_features(table: pd.DataFrame, compute_features: Callable[[Tensor], Tensor]) -> pd.DataFrame:
    """Add a column ``speaker_features``: statistics of each speaker's features over all utterances of the table."""
    groups = tqdm(table.groupby("speaker")["prepared"], desc="speaker statistics", leave=False, disable=None)
    statistics = {
        speaker: SpeakerStatistics.measure_features(
            compute_features(torch.from_numpy(np.load(path))[None]) for path in paths
        )
        for speaker, paths in groups
    }
    return table.assign(speaker_features=table["speaker"].map(statistics))
