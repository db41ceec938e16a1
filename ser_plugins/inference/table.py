"""Tables that grow piece by piece, and whose making can be broken off at any moment."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from ser_plugins.errors import InputError
from ser_plugins.files import atomic_path

IDENTITY = b"identity"


def identity_of(facts: Any, paths: Iterable[str]) -> str:
    """Checksum of what a table depends on: some facts, as plain JSON, and the names, sizes and times of its files."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for path in paths:
        try:
            status = os.stat(path)
            known = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            known = "missing"
        digest.update(f"{path}\0{known}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


class Part:
    """The pieces of a table that are done, in a file beside it.

    The file is an Arrow stream, to which each piece is appended whole. A process that is killed leaves half a piece at
    most, which the next one cuts off.

    Parameters
    ----------
    output : pathlib.Path
        The table: .csv, .jsonl or .parquet.
    schema : pyarrow.Schema
        Its columns.
    identity : str
        What the table depends on; see `identity_of`.

    Attributes
    ----------
    pieces : int
        How many are done.

    Raises
    ------
    InputError
        If the table's kind is unknown, or the file cannot be used: it is of something else, or in use.
    """

    def __init__(self, output: Path, schema: pa.Schema, identity: str) -> None:
        if output.suffix.lower() not in WRITERS:
            raise InputError(f"{output} is no kind of table that is known; name it {', '.join(WRITERS)}")
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
            # Not flock: processes that read would inherit it, and outlive a killed one by some seconds.
            fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{self.path} is being written by another process; wait for it") from error
        ends = [end for _, end in self._read()]
        self.pieces = len(ends)
        self._handle.truncate(ends[-1] if ends else 0)
        if not ends:
            self._write(self.schema.serialize())

    def _read(self) -> Iterator[tuple[pa.RecordBatch, int]]:
        """Yield each whole piece, and where it ends."""
        self._handle.seek(0)
        try:
            reader = pa.ipc.open_stream(self._handle)
        except pa.ArrowInvalid:  # not even the columns were written
            return
        if reader.schema.metadata != self.schema.metadata:
            raise InputError(f"{self.path} is of another model, other files or options; delete it to begin anew")
        while True:
            try:
                yield reader.read_next_batch(), self._handle.tell()
            except (StopIteration, pa.ArrowInvalid, OSError):
                return

    def _write(self, message: pa.Buffer) -> None:
        self._handle.write(message)
        self._handle.flush()
        os.fsync(self._handle.fileno())

    def append(self, piece: pa.RecordBatch) -> None:
        """Keep a piece."""
        self._write(piece.serialize())

    def rows(self) -> Iterator[pa.RecordBatch]:
        """Yield the pieces."""
        return (piece for piece, _ in self._read())

    def finish(self) -> None:
        """Write the table, whole or not at all, and drop the part."""
        with atomic_path(self.output) as path:
            WRITERS[self.output.suffix.lower()](self, path)
        self.path.unlink()
        self._handle.close()


def _write_csv(part: Part, path: Path) -> None:
    """Nine digits tell any float32 from its neighbours; an embedding is one column a number."""
    size = max((len(one) for piece in _column(part, "embedding") for one in piece if one is not None), default=0)
    with path.open("w", encoding="utf-8", newline="") as file:
        for count, piece in enumerate(part.rows()):
            frame = piece.to_pandas()
            if "embedding" in frame:
                given = [[None] * size if one is None else one for one in frame["embedding"]]
                wide = pd.DataFrame(given, columns=[f"embedding_{i}" for i in range(size)], dtype="float32")
                place = frame.columns.get_loc("embedding")
                frame = pd.concat([frame.iloc[:, :place], wide, frame.iloc[:, place + 1 :]], axis=1)
            frame.to_csv(file, index=False, header=count == 0, float_format="%.9g", lineterminator="\n")


def _column(part: Part, name: str) -> Iterator[Any]:
    return (piece.column(name).to_pandas() for piece in part.rows() if name in part.schema.names)


def _write_jsonl(part: Part, path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for piece in part.rows():
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in piece.to_pylist())


def _write_parquet(part: Part, path: Path) -> None:
    with pa.parquet.ParquetWriter(path, part.schema.remove_metadata()) as writer:
        for piece in part.rows():
            writer.write_batch(piece)


WRITERS: dict[str, Callable[[Part, Path], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
