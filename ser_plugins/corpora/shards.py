"""Prepared speech in shards (WebDataset's tar files) that an epoch reads from front to back at constant memory."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
from joblib import Parallel, cpu_count, delayed
from tqdm import tqdm

from ser_plugins.audio.reading import SAMPLE_RATE
from ser_plugins.audio.speech import SpeechNormalizer, normalize_files
from ser_plugins.corpora.corpus import Corpus
from ser_plugins.corpora.prepared import worker_deaths_named
from ser_plugins.errors import InputError
from ser_plugins.files import atomic_path, atomic_write

INDEX = "shards.json"


@dataclass(frozen=True)
class Shard:
    """One tar file.

    Attributes
    ----------
    path : pathlib.Path
        Where it is.
    samples : int
        Utterances that it holds.
    """

    path: Path
    samples: int


@dataclass(frozen=True)
class ShardFolder:
    """A folder of shards, complete.

    Attributes
    ----------
    folder : pathlib.Path
        Where they are, with ``shards.json``.
    index : dict
        What ``shards.json`` says: ``settings``, ``corpus``, ``speakers``, ``licence``, ``synthetic``, ``parts``
        (samples of each shard), ``seconds`` and ``faults``.
    """

    folder: Path
    index: Mapping[str, Any]

    @property
    def speakers(self) -> list[str]:
        """Speakers of the training part, in the order of their classes."""
        return list(self.index["speakers"])

    def part(self, name: str) -> list[Shard]:
        """Shards of a part."""
        samples = self.index["parts"][name]
        return [Shard(_path(self.folder, name, number), count) for number, count in enumerate(samples)]

    def trials(self) -> pd.DataFrame:
        """Trial pairs: ``target`` (1 or 0), ``first`` and ``second``, ids of the part "trials"."""
        return pd.read_csv(self.folder / "trials.csv", dtype={"first": str, "second": str})


def open_shards(folder: Path, settings: Mapping[str, Any] | None = None) -> ShardFolder | None:
    """Open a folder of shards; None where it is not complete.

    Raises
    ------
    InputError
        If they were made with other ``settings``.
    """
    if not (folder / INDEX).is_file():
        return None
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    if settings is not None and index["settings"] != settings:
        raise InputError(
            f"{folder} was made with other settings or other audio; delete it or give another --shards_folder"
        )
    return ShardFolder(folder, index)


def write_shards(
    parts: Mapping[str, Corpus],
    trials: pd.DataFrame,
    normalizer: SpeechNormalizer,
    folder: Path,
    shard_size: int = 512,
    workers: int | None = None,
) -> ShardFolder:
    """Decode, normalise and pack utterances once; what an interrupted call has packed is kept.

    Utterances are spread over the shards of their part at random, so that a shard is a fair sample of it. Audio that
    cannot be used is left out, and listed in ``faults.csv``.

    Parameters
    ----------
    parts : mapping
        Name of a part to its utterances.
    trials : pandas.DataFrame
        Pairs of the part "trials": ``target``, ``first``, ``second``.
    normalizer : SpeechNormalizer
        What is done to each utterance.
    folder : pathlib.Path
        Where the shards go.
    shard_size : int
        Utterances a shard.
    workers : int, optional
        Processes; one a core where not given.
    """
    settings = shard_settings(parts, trials, normalizer, shard_size)
    done = open_shards(folder, settings)
    if done is not None:
        return done
    began = folder / "settings.json"
    if began.is_file() and json.loads(began.read_text(encoding="utf-8")) != settings:
        raise InputError(f"{folder} was begun with other settings or other audio; delete it or give another folder")
    atomic_write(began, json.dumps(settings))
    jobs = list(_plan(parts, folder, shard_size))
    missing = [(path, parts[name].root, table) for name, path, table in jobs if not path.is_file()]
    if missing:
        work = (delayed(_write_shard)(*job, normalizer) for job in missing)
        count = cpu_count() if workers is None else workers
        packed = Parallel(n_jobs=min(count, len(missing)), return_as="generator_unordered")(work)
        with worker_deaths_named():
            for _ in tqdm(packed, total=len(missing), desc="packing shards", unit="shard"):
                pass
    return _finish(jobs, trials, settings, parts["train"], folder)


def shard_settings(
    parts: Mapping[str, Corpus], trials: pd.DataFrame, normalizer: SpeechNormalizer, shard_size: int
) -> dict[str, Any]:
    """All that the shards depend on besides the bytes of the audio."""
    digest = hashlib.sha256()
    for table in (*(part.table for part in parts.values()), trials):
        for start in range(0, len(table), 10_000):
            digest.update(table.iloc[start : start + 10_000].to_csv(index=False, lineterminator="\n").encode())
    return {**normalizer.settings(), "shard_size": shard_size, "sha256": digest.hexdigest()}


def read_shard(path: Path) -> Iterator[tuple[str, str, bytes]]:
    """Read a shard from front to back: id, speaker, and FLAC bytes of each utterance."""
    import webdataset  # noqa: PLC0415

    source = webdataset.DataPipeline(webdataset.SimpleShardList([str(path)]), webdataset.tarfile_to_samples())
    for sample in source:
        about = json.loads(sample["json"])
        yield about["id"], about["speaker"], sample["flac"]


def decode_flac(data: bytes) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Decode the audio of a shard, samples [T]."""
    signal, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    return np.asarray(signal)


def _plan(parts: Mapping[str, Corpus], folder: Path, size: int) -> Iterator[tuple[str, Path, pd.DataFrame]]:
    for name, part in parts.items():
        order = np.random.default_rng(0).permutation(len(part.table))
        count = -(-len(order) // size)
        for number in range(count):
            yield name, _path(folder, name, number), part.table.iloc[order[number::count]]


def _path(folder: Path, part: str, number: int) -> Path:
    return folder / f"{part}-{number:06d}.tar"


def _write_shard(path: Path, root: Path, table: pd.DataFrame, normalizer: SpeechNormalizer) -> None:
    import webdataset  # noqa: PLC0415

    faults, seconds = [], 0.0
    names = [str(name) for name in table["path"]]
    audio: dict[int, bytes] = {}
    for i, signal in normalize_files([root / name for name in names], normalizer):
        if isinstance(signal, InputError):
            faults.append({"path": names[i], "fault": str(signal)})
        else:
            audio[i] = _flac(signal.numpy())
            seconds += len(signal) / SAMPLE_RATE
    with atomic_path(path) as part:
        with webdataset.TarWriter(str(part), mtime=0) as sink:
            for number, i in enumerate(sorted(audio)):
                about = {"id": names[i], "speaker": str(table["speaker"].iloc[i])}
                sink.write({"__key__": f"{number:06d}", "flac": audio[i], "json": about})
        # The shard itself gets its name last: where it is, this file is.
        atomic_write(
            path.with_suffix(".json"), json.dumps({"samples": len(audio), "seconds": seconds, "faults": faults})
        )


def _flac(signal: np.ndarray[Any, np.dtype[np.float32]]) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, np.clip(signal, -1, 1), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return content.getvalue()


def _finish(
    jobs: Sequence[tuple[str, Path, pd.DataFrame]],
    trials: pd.DataFrame,
    settings: Mapping[str, Any],
    train: Corpus,
    folder: Path,
) -> ShardFolder:
    parts: dict[str, list[int]] = {}
    faults: list[dict[str, str]] = []
    seconds = 0.0
    for name, path, _ in jobs:
        about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        parts.setdefault(name, []).append(about["samples"])
        faults += about["faults"]
        seconds += about["seconds"]
    left_out = {fault["path"] for fault in faults}
    kept = trials[~trials["first"].isin(left_out) & ~trials["second"].isin(left_out)]
    atomic_write(folder / "trials.csv", kept.to_csv(index=False, lineterminator="\n"))
    table = pd.DataFrame(faults, columns=["path", "fault"])
    atomic_write(folder / "faults.csv", table.to_csv(index=False, lineterminator="\n"))
    index = {
        "settings": settings,
        "corpus": train.name,
        "speakers": sorted(train.table["speaker"].unique()),
        "licence": train.licence,
        "synthetic": train.synthetic,
        "parts": parts,
        "seconds": seconds,
        "faults": len(faults),
    }
    atomic_write(folder / INDEX, json.dumps(index))
    return ShardFolder(folder, index)
