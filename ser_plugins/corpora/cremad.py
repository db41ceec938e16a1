"""CREMA-D: 91 actors, six emotions (Cao et al., IEEE Transactions on Affective Computing 2014)."""

from __future__ import annotations

import pandas as pd

from ser_plugins.corpora.corpus import Corpus
from ser_plugins.corpora.files import check_utterances, find_utterances

CODES = {"ANG": "angry", "DIS": "disgust", "FEA": "fearful", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
SENTENCES = ("DFA", "IEO", "IOM", "ITH", "ITS", "IWL", "IWW", "MTI", "TAI", "TIE", "TSI", "WSI")
ACTORS = range(1001, 1092)
# From the corpus' VideoDemographics.csv; the other 48 actors are men.
WOMEN = {
    *(1002, 1003, 1004, 1006, 1007, 1008, 1009, 1010, 1012, 1013, 1018, 1020, 1021, 1024, 1025),
    *(1028, 1029, 1030, 1037, 1043, 1046, 1047, 1049, 1052, 1053, 1054, 1055, 1056, 1058, 1060),
    *(1061, 1063, 1072, 1073, 1074, 1075, 1076, 1078, 1079, 1082, 1084, 1089, 1091),
}
LEVELS = {"HI": "high", "LO": "low", "MD": "medium", "XX": "unspecified"}
NEVER_RECORDED = ("1002_TIE_NEU", "1008_WSI", "1009_MTI", "1019_ITH", "1076_ITS_NEU")
KNOWN_FAULTS = {
    "1076_MTI_SAD_XX": "known to be silent",
    **{
        stem: f"mislabelled: the same recording as {other}"
        for pair in (
            ("1006_TIE_HAP_XX", "1006_TIE_NEU_XX"),
            ("1013_WSI_DIS_XX", "1013_WSI_SAD_XX"),
            ("1017_IWW_ANG_XX", "1017_IWW_FEA_XX"),
        )
        for stem, other in (pair, pair[::-1])
    },
}
FORMER = {"1040_ITH_SAD_X": "1040_ITH_SAD_XX"}  # renamed in October 2022


def file_stems() -> list[str]:
    """All 7442 file names, actor by actor: actor_sentence_emotion_level.

    "It's eleven o'clock" (IEO) was spoken at three levels, but for neutral; twenty clips were never recorded.

    Example
    -------
    >>> len(file_stems()), file_stems()[0]
    (7442, '1001_DFA_ANG_XX')
    """
    return [
        f"{actor}_{sentence}_{code}_{level}"
        for actor in ACTORS
        for sentence in SENTENCES
        for code in CODES
        for level in (("HI", "LO", "MD") if sentence == "IEO" and code != "NEU" else ("XX",))
        if not f"{actor}_{sentence}_{code}".startswith(NEVER_RECORDED)
    ]


def utterances() -> pd.DataFrame:
    """Describe all utterances by their names, without audio.

    Returns
    -------
    pandas.DataFrame
        ``id``, ``speaker``, ``emotion``, and the ``sex``, ``intensity`` and ``sentence`` of each.

    Example
    -------
    >>> utterances().iloc[-1].tolist()
    ['1091_WSI_SAD_XX', '1091', 'sad', 'female', 'unspecified', 'WSI']
    """
    rows = []
    for stem in file_stems():
        actor, sentence, code, level = stem.split("_")
        sex = "female" if int(actor) in WOMEN else "male"
        rows.append((stem, actor, CODES[code], sex, LEVELS[level], sentence))
    return pd.DataFrame(rows, columns=["id", "speaker", "emotion", "sex", "intensity", "sentence"])


class CremaD:
    """CREMA-D from its folder of .wav files, ``AudioWAV``.

    Parameters
    ----------
    data_folder : str
        Folder that holds the .wav files, at any depth.
    allow_incomplete : bool
        Go on where files are missing or unreadable.
    exclude_faults : bool
        Leave out utterances that are silent or mislabelled.
    """

    def __init__(
        self,
        data_folder: str | None = None,
        allow_incomplete: bool = False,
        exclude_faults: bool = False,
    ) -> None:
        self.data_folder = data_folder
        self.allow_incomplete = allow_incomplete
        self.exclude_faults = exclude_faults

    def read(self) -> Corpus:
        """Read and check the corpus."""
        paths, faults = find_utterances("cremad", self.data_folder, file_stems(), self.allow_incomplete, FORMER)
        rows = [(stem, str(path), CODES[stem[9:12]], stem[:4], "") for stem, path in paths.items()]
        table = pd.DataFrame(rows, columns=["id", "path", "emotion", "speaker", "fault"])
        table, listed = check_utterances(
            "cremad", table, faults, KNOWN_FAULTS, self.allow_incomplete, self.exclude_faults
        )
        return Corpus("cremad", tuple(CODES.values()), table, listed, "ODbL 1.0")
