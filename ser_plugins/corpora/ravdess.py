"""RAVDESS: 24 actors, eight emotions, audio-only speech (Livingstone and Russo, PLoS ONE 2018)."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pandas as pd

from ser_plugins.corpora.corpus import Corpus
from ser_plugins.corpora.download import Archive, fetch
from ser_plugins.corpora.files import check_utterances, find_utterances
from ser_plugins.errors import InputError
from ser_plugins.metric.wheel import EMOTIONS

ACTORS = 24
# Intensities, and statements: "Kids are talking by the door", "Dogs are sitting by the door".
NAMED = ("normal", "strong"), ("kids", "dogs")
KNOWN_FAULTS = {
    "03-01-03-01-02-01-07": "the same recording as 03-01-03-01-02-02-07",
    "03-01-03-01-02-02-07": "the same recording as 03-01-03-01-02-01-07",
}
ARCHIVE = Archive(
    url="https://zenodo.org/records/1188976/files/Audio_Speech_Actors_01-24.zip",
    md5="bc696df654c87fed845eb13823edef8a",
    size=208_468_073,
)


def file_stems() -> list[str]:
    """All 1440 file names, actor by actor: modality-channel-emotion-intensity-statement-repetition-actor.

    Neutral speech has no strong intensity.

    Example
    -------
    >>> len(file_stems()), file_stems()[0]
    (1440, '03-01-01-01-01-01-01')
    """
    return [
        f"03-01-{emotion:02d}-{intensity:02d}-{statement:02d}-{repetition:02d}-{actor:02d}"
        for actor, emotion, intensity, statement, repetition in product(
            range(1, ACTORS + 1), range(1, len(EMOTIONS) + 1), (1, 2), (1, 2), (1, 2)
        )
        if not (emotion == 1 and intensity == 2)
    ]


def utterances() -> pd.DataFrame:
    """Describe all utterances by their names, without audio.

    Returns
    -------
    pandas.DataFrame
        ``id``, ``speaker``, ``emotion``, and the ``sex``, ``intensity`` and ``sentence`` of each: actors with odd
        numbers are men.

    Example
    -------
    >>> utterances().iloc[-1].tolist()
    ['03-01-08-02-02-02-24', '24', 'surprised', 'female', 'strong', 'dogs']
    """
    rows = []
    for stem in file_stems():
        emotion, actor = _decode(stem)
        intensity, sentence = (names[int(code) - 1] for names, code in zip(NAMED, stem.split("-")[3:5], strict=True))
        rows.append((stem, actor, emotion, "male" if int(actor) % 2 else "female", intensity, sentence))
    return pd.DataFrame(rows, columns=["id", "speaker", "emotion", "sex", "intensity", "sentence"])


class Ravdess:
    """RAVDESS speech from its folder, ``Actor_01`` … ``Actor_24``.

    Parameters
    ----------
    data_folder : str
        Folder that holds the .wav files, at any depth.
    download : bool
        Fetch them from Zenodo (199 MB) into ``data_folder`` first, unless they are there.
    allow_incomplete : bool
        Go on where files are missing or unreadable.
    exclude_faults : bool
        Leave out utterances that are silent, mislabelled or recorded twice.
    """

    def __init__(
        self,
        data_folder: str | None = None,
        download: bool = False,
        allow_incomplete: bool = False,
        exclude_faults: bool = False,
    ) -> None:
        self.data_folder = data_folder
        self.download = download
        self.allow_incomplete = allow_incomplete
        self.exclude_faults = exclude_faults

    def read(self) -> Corpus:
        """Read and check the corpus."""
        if self.download:
            if self.data_folder is None:
                raise InputError("corpus ravdess: --download needs --data_folder, the folder to download to")
            fetch(ARCHIVE, Path(self.data_folder))
        paths, faults = find_utterances("ravdess", self.data_folder, file_stems(), self.allow_incomplete)
        rows = [(stem, str(path), *_decode(stem), _misplaced(stem, path)) for stem, path in paths.items()]
        table = pd.DataFrame(rows, columns=["id", "path", "emotion", "speaker", "fault"])
        table, listed = check_utterances(
            "ravdess", table, faults, KNOWN_FAULTS, self.allow_incomplete, self.exclude_faults
        )
        return Corpus("ravdess", EMOTIONS, table, listed, "CC BY-NC-SA 4.0")


def _decode(stem: str) -> tuple[str, str]:
    fields = stem.split("-")
    return EMOTIONS[int(fields[2]) - 1], fields[6]


def _misplaced(stem: str, path: Path) -> str:
    folder = re.fullmatch(r"Actor_(\d\d)", path.parent.name)
    if folder is None or folder[1] == stem[-2:]:
        return ""
    return f"mislabelled: the name says actor {stem[-2:]}, the folder {folder[1]}"
