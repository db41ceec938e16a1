"""Crops, datasets and their order."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataloader import SaveableDataLoader
from torch.utils.data import DataLoader

from ser_plugins.audio.spectrogram import MelSpectrogram
from ser_plugins.training import data
from ser_plugins.training.data import (
    ResidentBatch,
    ResidentDataset,
    by_length,
    crop,
    make_dataset,
    make_loader,
    with_speaker_features,
)

LENGTHS = [300, 100, 500, 100]


@pytest.fixture
def table(tmp_path):
    rows = []
    for i, samples in enumerate(LENGTHS):
        path = tmp_path / f"{i}.npy"
        np.save(path, np.arange(samples, dtype=np.float32) + 1000 * i)
        emotion, speaker = ("sad", "02") if i == 1 else ("happy", "01")
        rows.append({"id": f"clip{i}", "prepared": path, "emotion": emotion, "speaker": speaker})
    return pd.DataFrame(rows, index=[7, 3, 5, 1])


@settings(deadline=None, max_examples=200)
@given(length=st.integers(1, 50), samples=st.integers(1, 120), where=st.floats(0, 1, exclude_max=True))
def test_crop_is_a_part_of_the_repeated_clip(length, samples, where):
    found = crop(np.arange(length), samples, where)
    start = found[0]
    assert found.tolist() == [(start + i) % length for i in range(samples)]
    if samples <= length:
        assert start + samples <= length


@pytest.mark.parametrize(("length", "samples", "starts"), [(10, 7, 4), (10, 10, 1), (4, 6, 3), (5, 10, 1)])
def test_crops_begin_wherever_they_fit(length, samples, starts):
    found = {int(crop(np.arange(length), samples, where)[0]) for where in np.linspace(0, 0.999, 200)}
    assert found == set(range(starts))


@pytest.mark.parametrize(
    ("column", "classes", "targets"),
    [("emotion", ["angry", "sad", "happy"], [2, 1, 2, 2]), ("speaker", ["02", "01"], [1, 0, 1, 1])],
)
def test_items_are_whole_utterances_with_their_class(table, column, classes, targets):
    dataset = make_dataset(table, column, classes)
    assert len(dataset) == len(table)
    for i, item in enumerate(dataset):
        assert set(item) == {"id", "speaker", "signal", "label"} and item["id"] == f"clip{i}"
        assert item["speaker"] == table["speaker"].iloc[i]
        assert item["signal"].dtype == torch.float32
        assert item["signal"].tolist() == [1000 * i + sample for sample in range(LENGTHS[i])]
        assert item["label"].tolist() == [targets[i]]


def test_crops_are_of_the_seconds_asked_for_and_differ(table):
    torch.manual_seed(0)
    dataset = make_dataset(table, "emotion", ["happy", "sad"], crop_seconds=250 / 16000)
    assert [len(item["signal"]) for item in dataset] == [250] * 4
    assert len({float(dataset[2]["signal"][0]) for _ in range(20)}) > 5
    assert np.load(table["prepared"].iloc[0]).tolist() == list(range(300))


def test_a_dataset_makes_padded_batches(table):
    loader = SaveableDataLoader(make_dataset(table, "emotion", ["happy", "sad"]), batch_size=4, collate_fn=PaddedBatch)
    (batch,) = loader
    assert batch.signal.data.shape == (4, 500) and batch.label.data.tolist() == [[0], [1], [0], [0]]
    assert batch.signal.lengths.tolist() == pytest.approx([0.6, 0.2, 1, 0.2])


def test_by_length_sorts_and_keeps_equal_ones_in_order(table):
    ordered = by_length(table)
    assert ordered["id"].tolist() == ["clip1", "clip3", "clip0", "clip2"]
    assert ordered.columns.tolist() == table.columns.tolist()
    pd.testing.assert_frame_equal(ordered.loc[table.index], table)


def test_speaker_features_are_measured_over_all_utterances_of_a_speaker(table):
    features = MelSpectrogram(log=True)
    known = with_speaker_features(table, features)
    of_01 = torch.cat([features(torch.from_numpy(np.load(table["prepared"].iloc[i]))[None])[0] for i in (0, 2, 3)])
    for i, item in enumerate(make_dataset(known, "emotion", ["happy", "sad"])):
        if i != 1:
            np.testing.assert_allclose(item["speaker_features"][:-1], of_01.mean(0), rtol=1e-5)
            assert float(item["speaker_features"][-1]) == pytest.approx(
                float((of_01 - of_01.mean(0)).square().mean().sqrt())
            )
    assert not torch.allclose(known["speaker_features"].iloc[1], known["speaker_features"].iloc[0])
    loader = SaveableDataLoader(make_dataset(known, "speaker", ["01", "02"]), batch_size=4, collate_fn=PaddedBatch)
    assert next(iter(loader)).speaker_features.data.shape == (4, 81)


@pytest.mark.parametrize("seconds", [None, 250 / 16000, 100 / 16000, 1200 / 16000])
def test_batches_from_device_memory_equal_batches_from_files(table, seconds):
    known = with_speaker_features(table, MelSpectrogram())
    classes = ["happy", "sad"]
    files = DataLoader(
        make_dataset(known, "emotion", classes, seconds), batch_size=3, collate_fn=PaddedBatch, shuffle=False
    )
    resident = DataLoader(
        ResidentDataset(make_dataset(known, "emotion", classes), "cpu", seconds),
        batch_size=3,
        collate_fn=lambda batch: batch,
    )
    for repeat in range(20 if seconds else 1):
        torch.manual_seed(repeat)
        theirs = list(files)
        torch.manual_seed(repeat)
        ours = list(resident)
        assert len(theirs) == len(ours) == 2
        for one, other in zip(ours, theirs, strict=True):
            assert isinstance(one, ResidentBatch) and one.to("cpu") is one
            assert one.id == other.id and one.speaker == other.speaker
            for key in ("signal", "label", "speaker_features"):
                (data, lengths), (their_data, their_lengths) = getattr(one, key), getattr(other, key)
                assert data.dtype == their_data.dtype
                torch.testing.assert_close(data, their_data, rtol=0, atol=0)
                torch.testing.assert_close(lengths, their_lengths, rtol=0, atol=0)


def test_a_processor_reads_files(table):
    loader = make_loader(table, "emotion", ["happy", "sad"], "cpu", batch_size=4)
    (batch,) = loader
    assert isinstance(batch, PaddedBatch) and batch.signal.data.shape == (4, 500)


@pytest.mark.parametrize(("free", "resident"), [(1e9, True), (1e3, False)])
def test_a_gpu_with_enough_memory_gets_the_audio(table, monkeypatch, free, resident):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
    monkeypatch.setattr(
        data, "ResidentDataset", lambda dataset, device, seconds: ResidentDataset(dataset, "cpu", seconds)
    )
    (batch,) = make_loader(table, "emotion", ["happy", "sad"], "cuda", batch_size=4)
    assert isinstance(batch, ResidentBatch if resident else PaddedBatch) and batch.signal.data.shape == (4, 500)
