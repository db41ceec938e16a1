"""Files written whole or not at all: a run that is cut off leaves no half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ser_plugins.errors import InputError


def _umask() -> int:
    """Return the umask, which the system only tells while setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def readable(name: str) -> str:
    """Replace the bytes of a name that are no UTF-8: tables take none."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes; the lock ends with the block or the process.

    The folder is made where it is missing. One that is still empty at the end is removed.

    Raises
    ------
    InputError
        If another process has locked it.
    """
    try:
        import fcntl  # noqa: PLC0415
    except ImportError:  # Windows has none
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise InputError(f"another process works in {folder}; wait for it, or give another folder") from error
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(descriptor)
        with suppress(OSError):  # not empty
            folder.rmdir()


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the same folder, with the same suffix, that replaces ``path`` if the block succeeds.

    The folder is made where it is missing. If the block raises, the temporary file goes and ``path`` stays as it was.

    Parameters
    ----------
    path : str or os.PathLike
        The file to write.

    Yields
    ------
    pathlib.Path
        The file to write to instead.

    Raises
    ------
    InputError
        If the folder cannot be made or written to.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> with atomic_path(folder / "fold.csv") as part:
    ...     _ = part.write_text("id,speaker")
    >>> (folder / "fold.csv").read_text()
    'id,speaker'
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}); give another folder") from error
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o666 & ~_umask())  # mkstemp's files are for their owner alone; others may read a result
        try:
            os.replace(part, path)
        except OSError as error:
            raise InputError(f"cannot write {path} ({error.strerror}); give another name") from error
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> None:
    r"""Write a file whole or not at all; text is written as UTF-8 with its newlines as they are.

    Parameters
    ----------
    path : str or os.PathLike
        The file to write; its folder is made where it is missing.
    data : bytes or str
        All that it is to hold.

    Example
    -------
    >>> path = getfixture("tmp_path") / "results" / "summary.md"
    >>> atomic_write(path, "| accuracy |\n")
    >>> path.read_bytes()
    b'| accuracy |\n'
    """
    with atomic_path(path) as part:
        part.write_bytes(data.encode() if isinstance(data, str) else data)


def walk(root: Path, suffixes: tuple[str, ...] = (".wav",)) -> list[Path]:
    """Find the files below a folder, hidden ones aside, whose names end so."""
    # os.walk, for Path.rglob does not follow links to folders.
    paths: list[Path] = []
    seen: set[str] = set()  # a folder that is linked into itself has no end
    for folder, below, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below.sort()
        paths += [Path(folder) / file for file in files if file.lower().endswith(suffixes) and not file.startswith(".")]
    return paths
