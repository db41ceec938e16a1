"""Find a model: a local folder, one that the package holds, or files on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ser_plugins.errors import InputError

WEIGHTS_FOLDER = Path(__file__).parents[1] / "weights"
BUILTIN = "builtin"
EMOTIONS = "builtin:emotions"
"""The emotion model that the package holds; the default of `ser_plugins.load` and of the commands."""


def builtin_folder(source: str) -> Path:
    """Return the folder of a model that the package holds: ``builtin:NAME``; ``builtin`` is ``builtin:speakers``.

    Raises
    ------
    InputError
        If the package holds no such model; the message lists those it holds.
    """
    name = source.partition(":")[2] or "speakers"
    known = sorted(folder.name for folder in WEIGHTS_FOLDER.glob("*") if folder.is_dir())
    if name not in known:
        raise InputError(f"no built-in model {name!r}; the package holds {', '.join(known) or 'none'}")
    return WEIGHTS_FOLDER / name


def local_folder(source: str | Path) -> Path | None:
    """Return the folder of a model on this machine: a folder, or ``builtin:NAME``; None for a name on the Hub."""
    if Path(source).is_dir():
        return Path(source)
    return builtin_folder(str(source)) if str(source).partition(":")[0] == BUILTIN else None


def find_folder(source: str | Path, files: Sequence[str], revision: str | None = None) -> Path:
    """Find a local folder, or download some files from the Hub.

    Parameters
    ----------
    source : str or pathlib.Path
        A folder, ``builtin:NAME``, or USER/NAME on the Hub.
    files : sequence of str
        Names of the files to download from the Hub; missing ones are skipped.
    revision : str, optional
        Branch, tag or commit on the Hub.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    InputError
        If there is neither such a folder nor such a model on the Hub, or a revision of a local folder is given.

    Example
    -------
    >>> find_folder("no/such/folder", ["config.json"])
    Traceback (most recent call last):
        ...
    ser_plugins.errors.InputError: no model at no/such/folder; give a folder or a Hub id USER/NAME
    """
    if folder := local_folder(source):
        if revision is not None:
            raise InputError(f"{source} is a folder, which has no revisions; leave --revision out")
        return folder
    source = str(source)
    if source.count("/") != 1 or source.startswith((".", "/")):
        raise InputError(f"no model at {source}; give a folder or a Hub id USER/NAME")
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import (  # type: ignore[attr-defined] # noqa: PLC0415
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
    )

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(files)))
    except (OSError, HTTPError, HFValidationError) as error:
        lines = [line for line in str(error).splitlines() if line]
        # The first line of the Hub's answer is a status code; the second explains it.
        reason = " ".join(lines[: 2 if isinstance(error, HfHubHTTPError) else 1])
        raise InputError(f"no folder {source}, and it cannot be downloaded from the Hub: {reason}") from error
