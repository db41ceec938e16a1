"""Tables of files on a cluster: callable classes for Ray Data, and parts that its workers write."""

from __future__ import annotations

import logging
import os
import socket
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from ser_plugins.audio.speaker import SpeakerStatistics
from ser_plugins.errors import InputError
from ser_plugins.files import atomic_path, atomic_write, readable
from ser_plugins.inference.batches import BATCH_SECONDS, CHUNK_FILES
from ser_plugins.inference.files import SUFFIXES, reason
from ser_plugins.inference.table import record_batch, schema_of
from ser_plugins.inference.utterances import Columns, embedding_output, prediction_output, table_chunks
from ser_plugins.memory import keep_memory
from ser_plugins.model_folder.plain import load_plain

SHARD = ".tar"
SETTINGS = "_settings"  # readers of Parquet leave out what begins so
MOST_BLOCKS = 10_000  # the parts of one block are computed one after the other


class FileEmbedder:
    """Embed the files and shards of a batch: a callable class for ``ray.data.Dataset.map_batches``.

    It needs no Ray, and can be called anywhere.

    Parameters
    ----------
    model : str or pathlib.Path
        A source as `ser_plugins.load` takes it; each worker reads it.
    revision : str, optional
        Branch, tag or commit of the model on the Hub.
    device : str, optional
        "cpu", "cuda" …; by default the GPU that Ray gives to the worker, or the CPU.
    batch_seconds : float
        Largest length of a batch of the network in seconds, padding included.
    speaker : SpeakerStatistics, optional
        Statistics of the speaker of all files.

    Example
    -------
    >>> folder = getfixture("tiny_s8")  # a model folder, and a folder of two recordings
    >>> embed = FileEmbedder(folder / "model")
    >>> embed({"path": [folder / "clips" / "a.wav"]}).column_names
    ['path', 'seconds', 'embedding', 'warning', 'error']
    """

    def __init__(
        self,
        model: str | Path,
        revision: str | None = None,
        device: str | None = None,
        batch_seconds: float = BATCH_SECONDS,
        speaker: SpeakerStatistics | None = None,
    ) -> None:
        self.model = load_plain(model, revision, device)
        self.batch_seconds = batch_seconds
        self.speaker = speaker
        self.output = embedding_output()

    def __call__(self, batch: Mapping[str, Iterable[Any]], apart: bool = False) -> pa.Table:
        """Compute the rows of a batch.

        Parameters
        ----------
        batch : mapping
            ``path``: sound files, and shards by the suffix .tar.
        apart : bool
            Read in another process; a file that kills it is a row with an error.

        Returns
        -------
        pyarrow.Table
            A row per sound file, with the columns of `embed`. The path of a file in a shard is ``SHARD/NAME``. A shard
            that cannot be read is a row with an error.
        """
        schema = schema_of(self.output.types)
        chunks = [chunk for path in _runs(batch["path"]) for chunk in self._chunks(path, apart)]
        return pa.Table.from_batches([record_batch(chunk, schema) for chunk in chunks], schema)

    def _chunks(self, paths: Sequence[str], apart: bool) -> Iterator[Columns]:
        if not paths[0].endswith(SHARD):
            yield from self._table(paths, apart)
            return
        (shard,) = paths
        with _unpacked(shard) as (files, error):
            for chunk in self._table(list(files), apart):
                names = [files[path] for path in chunk["path"]]
                told = [e and e.replace(*pair) for e, *pair in zip(chunk["error"], chunk["path"], names, strict=True)]
                yield {**chunk, "path": names, "error": told}
            if error is not None:
                yield {**{name: [None] for name in self.output.types}, "path": [readable(shard)], "error": [error]}

    def _table(self, paths: Sequence[str], apart: bool) -> Iterator[Columns]:
        quiet = {"progress": False, "apart": apart}
        return table_chunks(self.model, paths, self.output, 0, self.batch_seconds, self.speaker, **quiet)


class FilePredictor(FileEmbedder):
    """Predict the emotion of the files and shards of a batch: a callable class for ``ray.data.Dataset.map_batches``.

    The rows have the columns of `predict`.

    Parameters
    ----------
    model, revision, device, batch_seconds, speaker
        As those of `FileEmbedder`.
    labels : sequence of str, optional
        Emotions to choose from; by default all labels of the model.
    unknown : float
        Below this probability the emotion is "unknown".

    Example
    -------
    >>> folder = getfixture("tiny_s8")
    >>> predict = FilePredictor(folder / "model", labels=["happy", "sad"])
    >>> predict({"path": [folder / "clips" / "a.wav"]}).column_names
    ['path', 'seconds', 'emotion', 'probability', 'happy', 'sad', 'warning', 'error']
    """

    def __init__(
        self, model: str | Path, *settings: Any, labels: Sequence[str] | None = None, unknown: float = 0.0, **more: Any
    ) -> None:
        super().__init__(model, *settings, **more)
        self.output = prediction_output(self.model, labels, unknown)


def _runs(paths: Iterable[Any]) -> Iterator[list[str]]:
    """Yield the files between shards together, and each shard alone."""
    files: list[str] = []
    for path in map(os.fspath, paths):
        if not path.endswith(SHARD):
            files.append(path)
            continue
        if files:
            yield files
        yield [path]
        files = []
    if files:
        yield files


@contextmanager
def _unpacked(shard: str) -> Iterator[tuple[dict[str, str], str | None]]:
    """Unpack the sound files of a shard: their paths with their names in the table, and what is wrong with the rest."""
    files: dict[str, str] = {}
    error = None
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tarfile.open(shard) as tar:
                for member in tar:
                    content = tar.extractfile(member) if member.name.lower().endswith(SUFFIXES) else None
                    if content is not None:  # a regular file
                        path = Path(folder, f"{len(files)}{Path(member.name).suffix}")
                        path.write_bytes(content.read())
                        files[str(path)] = readable(f"{shard}/{member.name}")
        except (tarfile.TarError, OSError) as reading:
            error = readable(f"{reason(shard, reading)}; copy the shard again")
        yield files, error


class PartWriter:
    """Write parts of a table in Parquet: a callable class for batches of ``part``, a name, and ``paths``, its files.

    A part that is there is left as it is. The files of a part whose worker died are read in another process, since one
    of them may have killed it.

    Parameters
    ----------
    make : callable
        Makes the `FileEmbedder` or `FilePredictor`.
    folder : pathlib.Path
        Folder of the parts, which all workers reach.
    """

    def __init__(self, make: Callable[[], FileEmbedder], folder: Path) -> None:
        keep_memory()
        self.table, self.folder = make(), folder

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Write the parts; return their names."""
        for name, paths in zip(batch["part"], batch["paths"], strict=True):
            if (self.folder / name).exists():
                continue
            begun = self.folder / f".{name}.begun"  # left behind where the worker dies
            apart = begun.exists()
            begun.touch()
            with atomic_path(self.folder / name) as path:
                # Embeddings do not repeat: a dictionary of them takes half as much again.
                pyarrow.parquet.write_table(self.table({"path": paths}, apart), path, use_dictionary=False)
            begun.unlink(missing_ok=True)
        return {"part": batch["part"]}


def plan_parts(paths: Sequence[str], size: int = CHUNK_FILES) -> dict[str, list[str]]:
    """Divide files and shards into parts: of up to ``size`` files each, or of one shard.

    Example
    -------
    >>> plan_parts(["a.wav", "b.wav", "c.wav", "d.tar"], size=2)
    {'part-000000.parquet': ['a.wav', 'b.wav'], 'part-000001.parquet': ['c.wav'], 'part-000002.parquet': ['d.tar']}
    """
    pieces = (run[start : start + size] for run in _runs(paths) for start in range(0, len(run), size))
    return {f"part-{number:06d}.parquet": piece for number, piece in enumerate(pieces)}


def begin_parts(folder: Path, identity: str) -> None:
    """Make the folder of a table's parts, or find the one of an interrupted run.

    Raises
    ------
    InputError
        If the folder holds parts of another table, or something else.
    """
    settings = folder / SETTINGS
    known = settings.read_text(encoding="utf-8") if settings.is_file() else None
    if known is None and folder.exists() and (not folder.is_dir() or os.listdir(folder)):
        raise InputError(f"{folder} holds something else; give another folder as --output")
    if known not in {None, identity}:
        raise InputError(f"{folder} is of another model, other files or options; delete it to start again")
    atomic_write(settings, identity)


def write_parts(
    parts: Mapping[str, Sequence[str]], make: Callable[[], FileEmbedder], folder: Path, device: str | None = None
) -> Iterator[str]:
    """Write the parts that are missing, on the cluster that Ray is connected to; yield their names.

    Parameters
    ----------
    parts : mapping
        As `plan_parts` returns them.
    make : callable
        Makes the `FileEmbedder` or `FilePredictor` of a worker.
    folder : pathlib.Path
        Where they are written.
    device : str, optional
        With "cuda", a worker takes a GPU beside its CPU.

    Raises
    ------
    InputError
        If the workers cannot do it.
    """
    import ray.data  # noqa: PLC0415 — optional

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # the error is told below
    missing = [{"part": name, "paths": list(paths)} for name, paths in parts.items() if not (folder / name).exists()]
    if not missing:
        return
    done = ray.data.from_items(missing, override_num_blocks=min(len(missing), MOST_BLOCKS)).map_batches(
        PartWriter,
        batch_size=1,
        fn_constructor_args=(make, folder),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=len(missing)),
        num_cpus=1,
        num_gpus=1 if device and device.startswith("cuda") else 0,
    )
    try:
        for row in done.iter_rows():
            yield row["part"]
    except ray.exceptions.RayError as error:
        raise InputError(
            f"a worker failed: {_cause(error)}; mend that, and run the same command again to go on"
        ) from error


def _cause(error: Exception) -> str:
    """Say in one line why a worker failed: Ray's message ends with its traceback."""
    return str(error).strip().splitlines()[-1].removeprefix("ser_plugins.errors.InputError: ")


def connect(address: str) -> None:
    """Connect to a Ray cluster: HOST:PORT, "auto" for the one of this machine, "local" to start one here.

    Raises
    ------
    InputError
        If Ray is not installed, or no cluster answers.
    """
    try:
        import ray.data  # noqa: PLC0415 — optional
    except ImportError as error:
        raise InputError('--ray needs Ray; pip install "ser-plugins[ray]"') from error
    host, _, port = address.rpartition(":")
    try:
        if host and port.isdigit() and "/" not in host:  # Ray itself waits for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address, log_to_driver=False, logging_level="warning", ignore_reinit_error=True)
    except (OSError, ValueError, RuntimeError) as error:
        told = " ".join(str(error).split())
        raise InputError(f"no Ray cluster at {address} ({told}); give HOST:PORT, auto or local") from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
