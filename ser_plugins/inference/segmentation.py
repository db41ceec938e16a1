"""Segments of one emotion: windows of a timeline joined, as a table and as files of annotation programs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ser_plugins.errors import InputError
from ser_plugins.files import atomic_write

MIN_SECONDS, MARGIN = 2.0, 0.1
SILENCE = -1
TIMES = ["turn", "start", "end"]


class Run(NamedTuple):
    """Windows ``first`` to ``last`` of one label; -1 is silence."""

    first: int
    last: int
    label: int


def segments(frame: pd.DataFrame, min_seconds: float = MIN_SECONDS, margin: float = MARGIN) -> pd.DataFrame:
    """Join the windows of a timeline to segments of one emotion.

    A segment continues until another emotion is more probable by ``margin``, or a window has no speech. A segment
    shorter than ``min_seconds`` then joins the neighbour whose emotion is the more probable in it. It stays if it has
    silence on both sides. The border between two windows is in the middle of their overlap.

    Parameters
    ----------
    frame : pandas.DataFrame
        As `timeline` or `conversation` returns it. Segments do not cross the borders of turns.
    min_seconds : float
        Shortest segment.
    margin : float
        Difference of probability that ends a segment, 0 to 1.

    Returns
    -------
    pandas.DataFrame
        One row per segment, sorted by start: ``path``, ``speaker`` (of a conversation), ``start`` and ``end`` in
        seconds, ``emotion``, and ``probability``, the mean probability of the emotion in the windows.

    Raises
    ------
    InputError
        If ``min_seconds`` is below 0, or ``margin`` not between 0 and 1.

    Example
    -------
    >>> frame = pd.DataFrame({"path": "talk.wav", "start": [0, 1, 2, 3], "end": [1, 2, 3, 4]})
    >>> frame = frame.assign(**{"happy": [0.2, 0.6, 0.1, 0.1], "sad": [0.8, 0.4, 0.9, 0.9]})
    >>> segments(frame)[["start", "end", "emotion", "probability"]].values.tolist()
    [[0.0, 4.0, 'sad', 0.75]]
    """
    check_lengths(min_seconds, margin)
    labels = [str(name) for name in frame.select_dtypes("number").columns if name not in TIMES]
    kept = [name for name in ("path", "speaker") if name in frame]
    rows = []
    for _, stretch in frame.groupby([name for name in ("path", "turn") if name in frame], sort=False):
        scores, starts, ends = stretch[labels].to_numpy(float), *_borders(stretch)
        for first, last, label in _join(_follow(scores, margin), scores, starts, ends, min_seconds):
            known = {**stretch.iloc[0][kept], "start": starts[first], "end": ends[last], "emotion": labels[label]}
            rows.append({**known, "probability": float(scores[first : last + 1, label].mean())})
    found = pd.DataFrame(rows, columns=[*kept, "start", "end", "emotion", "probability"])
    return found.sort_values(["path", "start"], kind="stable", ignore_index=True)


def check_lengths(min_seconds: float, margin: float = MARGIN) -> None:
    """Raise an `InputError` unless the minimum length of a segment and the margin can be used."""
    if not min_seconds >= 0 or not 0 <= margin <= 1:
        raise InputError(f"min_seconds {min_seconds}, margin {margin}: give 0 or more, and a margin of 0 to 1")


def _borders(stretch: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where each window's share of the time starts and ends."""
    starts, ends = (stretch[name].to_numpy(float).copy() for name in ("start", "end"))
    between = (starts[1:] + ends[:-1]) / 2
    starts[1:], ends[:-1] = np.maximum(starts[1:], between), np.minimum(ends[:-1], between)
    return starts, ends


def _follow(scores: NDArray[np.float64], margin: float) -> list[int]:
    """Label each window with hysteresis; -1 is silence."""
    found: list[int] = []
    for row in scores:
        if np.isnan(row).any():
            found.append(SILENCE)
            continue
        best, current = int(row.argmax()), found[-1] if found else SILENCE
        found.append(best if current == SILENCE or row[best] > row[current] + margin else current)
    return found


def _join(
    states: list[int],
    scores: NDArray[np.float64],
    starts: NDArray[np.float64],
    ends: NDArray[np.float64],
    min_seconds: float,
) -> list[Run]:
    """Give short segments to their neighbours, the least probable first; return the segments that are no silence."""
    while True:
        runs = _runs(states)
        speech = [run.label != SILENCE for run in runs]
        beside = {
            i: [runs[j].label for j in (i - 1, i + 1) if 0 <= j < len(runs) and speech[j]]
            for i in range(len(runs))
            if speech[i] and ends[runs[i].last] - starts[runs[i].first] < min_seconds - 1e-9
        }
        short = [i for i, neighbours in beside.items() if neighbours]
        if not short:
            return [run for run in runs if run.label != SILENCE]
        sums = {i: scores[runs[i].first : runs[i].last + 1].sum(0) for i in short}
        i = min(short, key=lambda i: sums[i][runs[i].label])
        first, last, _ = runs[i]
        states[first : last + 1] = [max(beside[i], key=lambda label: sums[i][label])] * (last + 1 - first)


def _runs(states: Sequence[int]) -> list[Run]:
    grouped = [list(group) for _, group in groupby(enumerate(states), key=lambda one: one[1])]
    return [Run(group[0][0], group[-1][0], group[0][1]) for group in grouped]


def write_segments(frame: pd.DataFrame, path: str | os.PathLike[str], seconds: float | None = None) -> None:
    r"""Write segments for another program, by the suffix of the file.

    Parameters
    ----------
    frame : pandas.DataFrame
        As `segments` returns it.
    path : str or os.PathLike
        ``.rttm``: one line per segment, whose eighth field is the speaker, the seventh the emotion and the ninth the
        probability; without speakers, the eighth is the emotion. ``.txt``: labels of Audacity. ``.TextGrid``: Praat, a
        tier per speaker.
    seconds : float, optional
        Length of the recording, for Praat; by default the end of the last segment.

    Raises
    ------
    InputError
        If the suffix is unknown, or a format of one recording is given several.

    Example
    -------
    >>> rows = {"path": "talk.wav", "start": [0.0], "end": [4.0], "emotion": ["sad"], "probability": [0.75]}
    >>> write_segments(pd.DataFrame(rows), getfixture("tmp_path") / "talk.txt")
    >>> (getfixture("tmp_path") / "talk.txt").read_text()
    '0.000000\t4.000000\tsad 0.75\n'
    """
    path = Path(path)
    check_format(path, frame["path"].unique().tolist())
    writer = FORMATS[path.suffix.lower()]
    last = float(frame["end"].max()) if len(frame) else 0.0
    atomic_write(path, "".join(f"{line}\n" for line in writer(frame, max(last, seconds or 0.0))))


def check_format(path: Path, recordings: Sequence[str]) -> None:
    """Raise an `InputError` unless ``path`` names a format that can tell the recordings apart."""
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{path} is not a known kind of segments; name it .rttm, .txt (Audacity) or .TextGrid (Praat)")
    if suffix != ".rttm" and len(recordings) > 1:
        raise InputError(f"{path} holds one recording; give one, or write .rttm or a table")
    names = Counter(_word(Path(one).stem) for one in recordings)
    if twice := [name for name, count in names.items() if count > 1]:
        raise InputError(f"{path} would name several recordings {twice[0]}; write a table, or give them one by one")


def _rttm(frame: pd.DataFrame, _: float) -> Iterator[str]:
    for row in frame.to_dict("records"):
        file, emotion = (_word(name) for name in (Path(row["path"]).stem, row["emotion"]))
        kind, name = (emotion, _word(row["speaker"])) if "speaker" in row else ("<NA>", emotion)
        length = row["end"] - row["start"]
        yield f"SPEAKER {file} 1 {row['start']:.3f} {length:.3f} <NA> {kind} {name} {row['probability']:.3f} <NA>"


def _word(name: str) -> str:
    return "_".join(str(name).split())


def _audacity(frame: pd.DataFrame, _: float) -> Iterator[str]:
    for row in frame.to_dict("records"):
        speaker = f"{row['speaker']}: " if "speaker" in row else ""
        text = " ".join(f"{speaker}{row['emotion']} {row['probability']:.2f}".split())
        yield f"{row['start']:.6f}\t{row['end']:.6f}\t{text}"


def _textgrid(frame: pd.DataFrame, seconds: float) -> Iterator[str]:
    """Write Praat's long text format; a gap is an interval without text."""
    tiers: dict[Any, pd.DataFrame] = dict(iter(frame.groupby("speaker"))) if "speaker" in frame else {"emotion": frame}
    yield from ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]
    yield from [f"xmin = 0\nxmax = {seconds:.6f}", "tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (name, tier) in enumerate(tiers.items(), 1):
        intervals = list(_intervals(tier, seconds))
        yield f'    item [{number}]:\n        class = "IntervalTier"\n        name = "{_quoted(name)}"'
        yield f"        xmin = 0\n        xmax = {seconds:.6f}\n        intervals: size = {len(intervals)}"
        for count, (start, end, text) in enumerate(intervals, 1):
            yield f"        intervals [{count}]:\n            xmin = {start:.6f}\n            xmax = {end:.6f}"
            yield f'            text = "{_quoted(text)}"'


def _intervals(tier: pd.DataFrame, seconds: float) -> Iterator[tuple[float, float, str]]:
    """Cover the recording without a gap or an overlap; turns of one speaker may overlap."""
    covered = 0.0
    for start, end, emotion in zip(tier["start"], tier["end"], tier["emotion"], strict=True):
        begin = max(round(start, 6), covered)
        if begin > covered:
            yield covered, begin, ""
        if round(end, 6) > begin:
            yield begin, round(end, 6), emotion
            covered = round(end, 6)
    if round(seconds, 6) > covered:
        yield covered, seconds, ""


def _quoted(text: str) -> str:
    return str(text).replace('"', '""')


FORMATS: dict[str, Callable[[pd.DataFrame, float], Iterator[str]]] = {
    ".rttm": _rttm,
    ".txt": _audacity,
    ".textgrid": _textgrid,
}
