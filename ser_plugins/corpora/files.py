"""Sound files below a folder, held against the list that a corpus should have."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from ser_plugins.audio.checks import SILENCE, check_signal
from ser_plugins.audio.reading import AudioStream
from ser_plugins.audio.speech import naming
from ser_plugins.errors import InputError
from ser_plugins.files import walk

Faults = list[tuple[str, str]]


def find_utterances(
    name: str,
    folder: str | Path | None,
    expected: Collection[str],
    allow_incomplete: bool,
    former: Mapping[str, str] | None = None,
) -> tuple[dict[str, Path], Faults]:
    """Find the .wav file of each expected utterance, at any depth.

    Parameters
    ----------
    name : str
        The corpus, for messages.
    folder : str or pathlib.Path
        Where to look.
    expected : collection of str
        Stems of all files that the corpus has.
    allow_incomplete : bool
        List what is missing instead of stopping.
    former : mapping of str to str, optional
        Stems of before a file was renamed, and what they are now.

    Returns
    -------
    dict of str to pathlib.Path
        Files by stem, in the order of ``expected``.
    list of tuple
        Missing and extra files, with the fault of each.

    Raises
    ------
    InputError
        If there is no such folder, or a file is missing and ``allow_incomplete`` does not hold.
    """
    if folder is None:
        raise InputError(f"corpus {name} needs --data_folder: the folder that holds its .wav files")
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"corpus {name}: there is no folder {root}; check --data_folder")
    wanted = set(expected)
    found: dict[str, Path] = {}
    faults: Faults = []
    for path in sorted(walk(root)):
        stem = (former or {}).get(path.stem, path.stem)
        if stem not in wanted:
            faults.append((str(path), f"extra: no file of {name} is called so; not used"))
        elif stem in found:
            faults.append((str(path), f"extra: a second copy of {found[stem]}; not used"))
        else:
            found[stem] = path
    if not found:
        raise InputError(f"corpus {name}: none of its {len(expected)} files is below {root}; check --data_folder")
    missing = [stem for stem in expected if stem not in found]
    if missing and not allow_incomplete:
        raise InputError(
            f"corpus {name}: {len(missing)} of {len(expected)} files are missing below {root}, first {missing[0]}.wav; "
            "copy them, or give --allow_incomplete true"
        )
    faults += [(f"{stem}.wav", "missing") for stem in missing]
    return {stem: found[stem] for stem in expected if stem in found}, faults


def listen(path: Path) -> str:
    """Return what is wrong with a sound file: nothing (""), "silent", "cut off", or why it cannot be used."""
    stream, peaks = AudioStream(path), [0.0]
    try:
        peaks += [float(abs(block.mean(1)).max()) for block, _ in stream]
        with naming(path):
            check_signal(stream.samples, stream.rate, float(np.max(peaks)))
    except InputError as error:
        return f"unreadable: {error}"
    if stream.warning:
        return f"cut off: {stream.warning}"
    return "silent" if max(peaks) < SILENCE else ""


def check_utterances(
    name: str, table: pd.DataFrame, faults: Faults, known: dict[str, str], allow_incomplete: bool, exclude_faults: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Listen to every utterance; fill in ``fault``, and make the list of all faults.

    Utterances that are silent, cut off or mislabelled stay unless ``exclude_faults``; those that cannot be read stop
    the run unless ``allow_incomplete``.
    """
    heard = _map(listen, [Path(path) for path in table["path"]], f"checking {name}")
    unreadable = [fault.startswith("unreadable") for fault in heard]
    if any(unreadable) and not allow_incomplete:
        first = heard[unreadable.index(True)].removeprefix("unreadable: ")
        raise InputError(f"corpus {name}: {sum(unreadable)} unreadable files; {first}")
    reasons = [
        "; ".join(filter(None, [own, fault, known.get(stem, "")]))
        for own, fault, stem in zip(table["fault"], heard, table["id"], strict=True)
    ]
    table = table.assign(fault=reasons)
    dropped = table["fault"].ne("") if exclude_faults else pd.Series(unreadable, index=table.index, dtype=bool)
    for path, fault, gone in zip(table["path"], table["fault"], dropped, strict=True):
        if fault:
            faults = [*faults, (path, f"{fault}; {'left out' if gone else 'kept'}")]
    return table[~dropped].reset_index(drop=True), pd.DataFrame(faults, columns=["path", "fault"], dtype=str)


def _map(function: Callable[[Path], str], paths: list[Path], title: str) -> list[str]:
    with ThreadPoolExecutor() as pool:
        return list(tqdm(pool.map(function, paths), total=len(paths), desc=title, unit="file"))
