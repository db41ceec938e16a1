"""Tables that are written chunk by chunk, and resumed after an interruption at any moment."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from ser_plugins.errors import InputError
from ser_plugins.files import atomic_path

IDENTITY = b"identity"
TYPES = {"text": pa.string(), "number": pa.float64(), "vector": pa.list_(pa.float32())}


def schema_of(types: Mapping[str, str]) -> pa.Schema:
    """Make the schema of columns from the names of their types."""
    return pa.schema({name: TYPES[kind] for name, kind in types.items()})


def record_batch(columns: Mapping[str, list[Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Make a chunk of a table from its columns, which are lists."""
    return pa.record_batch([pa.array(columns[field.name], field.type) for field in schema], schema=schema)


def to_pandas(chunks: Iterable[Mapping[str, list[Any]]], types: Mapping[str, str]) -> pd.DataFrame:
    """Join chunks to a table."""
    schema = schema_of(types)
    table: pd.DataFrame = pa.Table.from_batches((record_batch(chunk, schema) for chunk in chunks), schema).to_pandas()
    return table


def identity_of(settings: Any, paths: Iterable[str]) -> str:
    """Compute a checksum of what a table depends on: settings (plain JSON); names, sizes and times of its files."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in paths:
        try:
            status = os.stat(path)
            known = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            known = "missing"
        digest.update(f"{path}\0{known}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


class PartialTable:
    """The finished chunks of a table, in a file ``OUTPUT.part`` in the same folder.

    The file is an Arrow stream to which complete chunks are appended. If the process is killed, at most the last chunk
    is incomplete; the next run removes it. One process at a time can write it, where the system has file locks.

    Parameters
    ----------
    output : pathlib.Path
        The table: .csv, .jsonl or .parquet.
    schema : pyarrow.Schema
        Its columns.
    identity : str
        Checksum of all that the table depends on; see `identity_of`.

    Attributes
    ----------
    chunks : int
        Number of finished chunks.

    Raises
    ------
    InputError
        If the suffix is unknown, or the file belongs to another table or process.
    """

    def __init__(self, output: Path, schema: pa.Schema, identity: str) -> None:
        if output.suffix.lower() not in WRITERS:
            raise InputError(
                f"{output} is not a known kind of table; name it {', '.join(WRITERS)}, or give --segments for labels"
            )
        if output.is_dir():
            raise InputError(f"{output} is a folder; give the name of a file as --output")
        self.output = output
        self.path = output.with_name(f"{output.name}.part")
        self.schema = schema.with_metadata({IDENTITY: identity})
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            self._handle: IO[bytes] = open(self.path, "a+b")  # noqa: SIM115 — closed by finish
        except OSError as error:
            raise InputError(f"cannot write {self.path} ({error.strerror}); give another --output") from error
        try:
            _lock(self._handle)
        except OSError as error:
            raise InputError(f"another process is writing {self.path}; wait for it") from error
        ends = [end for _, end in self._read()]
        self.chunks = len(ends)
        self._handle.truncate(ends[-1] if ends else 0)
        if not ends:
            self._write(self.schema.serialize())

    def _read(self) -> Iterator[tuple[pa.RecordBatch, int]]:
        """Yield each complete chunk and the position of its end."""
        self._handle.seek(0)
        try:
            reader = pa.ipc.open_stream(self._handle)
        except pa.ArrowInvalid as error:  # not even the schema is complete
            self._handle.seek(0)
            if not self.schema.serialize().to_pybytes().startswith(self._handle.read()):
                raise InputError(f"{self.path} is no part of this table; move it, or give another --output") from error
            return
        if reader.schema.metadata != self.schema.metadata:
            raise InputError(f"{self.path} is of another model, other files or options; delete it to start again")
        while True:
            try:
                yield reader.read_next_batch(), self._handle.tell()
            except (StopIteration, pa.ArrowInvalid, OSError):
                return

    def _write(self, message: pa.Buffer) -> None:
        self._handle.write(message)
        self._handle.flush()
        os.fsync(self._handle.fileno())

    def append(self, chunk: pa.RecordBatch) -> None:
        """Append a chunk."""
        self._write(chunk.serialize())

    def read(self) -> Iterator[pa.RecordBatch]:
        """Yield the finished chunks."""
        return (chunk for chunk, _ in self._read())

    def finish(self) -> None:
        """Write the table, completely or not at all, and delete the part."""
        with atomic_path(self.output) as path:
            WRITERS[self.output.suffix.lower()](self, path)
        self._handle.close()
        self.path.unlink(missing_ok=True)


def _lock(file: IO[bytes]) -> None:
    """Lock a file for this process, or raise an `OSError`; without an effect on Windows, which has no ``fcntl``."""
    try:
        import fcntl  # noqa: PLC0415
    except ImportError:
        return
    # Not flock: the processes that read files would inherit it, and outlive a killed parent by some seconds.
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _write_csv(part: PartialTable, path: Path) -> None:
    """Write with nine digits, which determine a float32; an embedding is one column per value."""
    size = max((len(one) for chunk in _column(part, "embedding") for one in chunk if one is not None), default=0)
    with path.open("w", encoding="utf-8", newline="") as file:
        for count, chunk in enumerate(part.read()):
            frame = chunk.to_pandas()
            if "embedding" in frame:
                given = [[None] * size if one is None else one for one in frame["embedding"]]
                wide = pd.DataFrame(given, columns=[f"embedding_{i}" for i in range(size)], dtype="float32")
                place = frame.columns.get_loc("embedding")
                frame = pd.concat([frame.iloc[:, :place], wide, frame.iloc[:, place + 1 :]], axis=1)
            frame.to_csv(file, index=False, header=count == 0, float_format="%.9g", lineterminator="\n")


def _column(part: PartialTable, name: str) -> Iterator[Any]:
    return (chunk.column(name).to_pandas() for chunk in part.read() if name in part.schema.names)


def _write_jsonl(part: PartialTable, path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for chunk in part.read():
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in chunk.to_pylist())


def _write_parquet(part: PartialTable, path: Path) -> None:
    with pa.parquet.ParquetWriter(path, part.schema.remove_metadata()) as writer:
        for chunk in part.read():
            writer.write_batch(chunk)


WRITERS: dict[str, Callable[[PartialTable, Path], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
