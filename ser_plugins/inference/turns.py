"""Emotion in conversations: the turns of several speakers, each predicted with the statistics of its speaker."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch

from ser_plugins.audio.speaker import SpeakerStatistics
from ser_plugins.audio.speech import TOGETHER
from ser_plugins.corpora.text import decode, read_csv
from ser_plugins.errors import InputError
from ser_plugins.inference.batches import select_labels
from ser_plugins.inference.speaker import SECONDS, measure_speaker, normalizes_by_speaker, speech_features
from ser_plugins.inference.timelines import HOP, WINDOW, predict_windows
from ser_plugins.inference.windows import check_windows, cut, spans

if TYPE_CHECKING:
    from speechbrain.inference.classifiers import EncoderClassifier

NEEDED = ["start", "end", "speaker"]
RTTM_FIELDS = 9  # at least: type, file, channel, start, duration, orthography, subtype, speaker, confidence


def read_turns(path: str | os.PathLike[str]) -> pd.DataFrame:
    r"""Read who speaks when.

    Parameters
    ----------
    path : str or os.PathLike
        An RTTM file (``.rttm``), or a CSV table with the columns ``start`` and ``end`` in seconds and ``speaker``. A
        column ``file`` names the recording without folder and suffix, as an RTTM does.

    Returns
    -------
    pandas.DataFrame
        Columns ``file`` (None where the table has no such column), ``start``, ``end`` and ``speaker``.

    Raises
    ------
    InputError
        If the file cannot be read, or a turn has no speaker or no length.

    Example
    -------
    >>> path = getfixture("tmp_path") / "talk.rttm"
    >>> _ = path.write_text("SPEAKER talk 1 0.50 2.00 <NA> <NA> ann <NA> <NA>\n")
    >>> read_turns(path).to_dict("records")
    [{'file': 'talk', 'start': 0.5, 'end': 2.5, 'speaker': 'ann'}]
    """
    path = Path(path)
    try:
        text = decode(path.read_bytes(), str(path))
        turns = _read_rttm(text) if path.suffix.lower() == ".rttm" else _read_table(path, text)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give an RTTM or CSV file of turns") from error
    except (ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        told = " ".join(str(error).split())
        raise InputError(f"{path} is not a file of turns ({told}); give an RTTM or CSV file") from error
    if turns.empty:
        raise InputError(f"{path} has no turn; give another file")
    for row, (start, end, speaker) in enumerate(zip(turns["start"], turns["end"], turns["speaker"], strict=True), 1):
        if not 0 <= start < end < math.inf or not speaker.strip():
            raise InputError(
                f"{path}, turn {row}: {start} to {end} s of {speaker!r}; give a speaker, and end after start"
            )
    return turns


def _read_rttm(text: str) -> pd.DataFrame:
    lines = [line.split() for line in text.splitlines() if line.startswith("SPEAKER")]
    if short := [line for line in lines if len(line) < RTTM_FIELDS - 1]:
        raise ValueError(f"a line has {len(short[0])} fields: {' '.join(short[0])}")
    rows = [(file, float(start), float(start) + float(long), who) for _, file, _, start, long, _, _, who, *_ in lines]
    return pd.DataFrame(rows, columns=["file", *NEEDED])


def _read_table(path: Path, text: str) -> pd.DataFrame:
    table = read_csv(text, str(path), {"speaker": str, "file": str})
    if missing := [name for name in NEEDED if name not in table]:
        raise InputError(f"{path} lacks the column(s) {', '.join(missing)}; it has {', '.join(map(str, table))}")
    times = {name: table[name].astype(float) for name in ("start", "end")}
    return pd.DataFrame({"file": table.get("file"), **times, "speaker": table["speaker"].fillna("")})


def turns_of(turns: pd.DataFrame, recording: str | os.PathLike[str]) -> pd.DataFrame:
    """Select the turns of a recording, by its name without folder and suffix; turns that name no file are of any.

    Raises
    ------
    InputError
        If there are none.
    """
    name = Path(recording).stem
    own = turns[turns["file"].isna() | (turns["file"] == name)]
    if own.empty:
        there = ", ".join(sorted(set(turns["file"]))[:5])
        raise InputError(f"{os.fspath(recording)}: there are turns of {there}, and none of {name}; rename one of them")
    return own.sort_values("start", kind="stable")


def conversation(
    model: EncoderClassifier,
    path: str | os.PathLike[str],
    turns: pd.DataFrame,
    window: float = WINDOW,
    hop: float = HOP,
    labels: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Predict the emotion over time in a recording of several speakers.

    The windows do not cross the borders of a turn. A model with speaker normalisation (S7, S8) normalises each turn by
    all turns of its speaker in the recording.

    Parameters
    ----------
    model : speechbrain.inference.classifiers.EncoderClassifier
        As `ser_plugins.load` returns it.
    path : str or os.PathLike
        Recording of any sample rate and number of channels.
    turns : pandas.DataFrame
        As `read_turns` returns them.
    window, hop : float
        Length of a window, and step from one window to the next, in seconds. A shorter turn is one window.
    labels : sequence of str, optional
        Emotions to choose from, as if there were no others; by default all labels of the model.

    Returns
    -------
    pandas.DataFrame
        One row per window, sorted by ``start``: the columns of `timeline`, and ``turn`` (its number, by start) and
        ``speaker`` after ``path``.

    Raises
    ------
    InputError
        If the recording cannot be read, has no turn, or is shorter than all of them.

    Example
    -------
    >>> import ser_plugins
    >>> folder = getfixture("tiny_s8")  # a model folder, and a folder of two recordings
    >>> model = ser_plugins.load(folder / "model")
    >>> turns = pd.DataFrame({"file": None, "start": [0.0, 0.4], "end": [0.4, 0.9], "speaker": ["ann", "bob"]})
    >>> conversation(model, folder / "clips" / "a.wav", turns)[["turn", "speaker", "start", "end"]].values.tolist()
    [[0, 'ann', 0.0, 0.4], [1, 'bob', 0.4, 0.9]]
    """
    check_windows(window, hop)
    selected, classes = select_labels(model, labels)
    numbered = turns_of(turns, path).reset_index(drop=True)
    found = []
    for name, own in numbered.groupby("speaker", sort=False):
        speaker = _statistics(model, path, own)
        parts = sorted((*span, turn) for turn, start, end in _bounds(own) for span in spans(start, end, window, hop))
        stream = cut(path, [(start, end) for start, end, _ in parts])
        while some := list(islice(stream, TOGETHER)):
            frame = predict_windows(model, path, [one for _, one in some], selected, classes, speaker)
            frame.insert(1, "turn", [parts[index][2] for index, _ in some])
            frame.insert(2, "speaker", name)
            found.append(frame)
    if not found:
        raise InputError(f"{os.fspath(path)} ends before its first turn; check that the turns are of this recording")
    return pd.concat(found).sort_values(["start", "turn"], kind="stable", ignore_index=True)


def _bounds(turns: pd.DataFrame) -> Iterator[tuple[int, float, float]]:
    yield from zip(turns.index, turns["start"], turns["end"], strict=True)


@torch.no_grad()
def _statistics(
    model: EncoderClassifier, path: str | os.PathLike[str], turns: pd.DataFrame
) -> SpeakerStatistics | None:
    """Measure the speaker of some turns, if the model needs it and they have speech."""
    if not normalizes_by_speaker(model):
        return None
    parts = [part for _, start, end in _bounds(turns) for part in spans(start, end, SECONDS, SECONDS)]
    features = list(speech_features(model, path, (one for _, one in cut(path, parts))))
    return measure_speaker(model, features) if features else None
