"""Corpora for speaker identification: a folder a speaker, of any size."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from ser_plugins.corpora.corpus import Corpus
from ser_plugins.corpora.text import decode
from ser_plugins.errors import InputError
from ser_plugins.files import walk

SUFFIXES = (".wav", ".flac", ".m4a")
TRIAL_UTTERANCES = 20  # of a speaker that is held out, at most


@dataclass(frozen=True)
class SpeakerFolders:
    """A tree with one folder a speaker, read into a table of a hundred bytes an utterance.

    VoxCeleb2 is ``dev/aac/<speaker>/<video>/*.m4a``, VoxCeleb1 ``dev/wav/<speaker>/<video>/*.wav``.

    Parameters
    ----------
    data_folder : str or sequence of str
        Root of the corpus as it was unpacked. Several are read as one corpus: a speaker's name is then the path of its
        folder below the folder that holds them all.
    name : str
        Short name, as in ``--corpus``.
    below : sequence of str
        Where the speakers' folders may be below the root; the first that is there is taken.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for speaker in ("id1", "id2"):
    ...     (folder / speaker / "video").mkdir(parents=True)
    ...     (folder / speaker / "video" / "1.m4a").touch()
    >>> SpeakerFolders(str(folder)).read().table.to_dict("list")
    {'path': ['id1/video/1.m4a', 'id2/video/1.m4a'], 'speaker': ['id1', 'id2']}
    """

    data_folder: str | Sequence[str]
    name: str = "speakers"
    below: Sequence[str] = ("",)

    @property
    def roots(self) -> list[Path]:
        """Folders that hold the speakers' folders.

        Raises
        ------
        InputError
            If none of ``below`` is there.
        """
        if not self.data_folder:
            raise InputError(f"give --data_folder, the root of {self.name}")
        folders = [self.data_folder] if isinstance(self.data_folder, str) else self.data_folder
        return [self._root(folder) for folder in {os.path.abspath(folder): folder for folder in folders}.values()]

    def _root(self, folder: str) -> Path:
        for part in self.below:
            if (Path(folder) / part).is_dir():
                return Path(folder) / part
        places = " or ".join(os.path.join(folder, part) for part in self.below)
        raise InputError(f"{self.name} has no folder {places}; check --data_folder")

    def read(self) -> Corpus:
        """Find the utterances, sorted; paths are Arrow strings, speakers categories.

        Raises
        ------
        InputError
            If there are fewer than two speakers.
        """
        roots = self.roots
        if len(roots) > 1:
            roots = [Path(os.path.abspath(one)) for one in roots]
        root = Path(os.path.commonpath(roots))
        folders = (Path(entry) for one in roots for entry in os.scandir(one) if entry.is_dir() and entry.name[0] != ".")
        speakers = sorted(folder.relative_to(root).as_posix() for folder in folders)
        found = [
            pa.array(sorted(_audio_files(root, speaker)), pa.large_string())
            for speaker in tqdm(speakers, desc=f"listing {self.name}", unit="speaker", leave=False)
        ]
        counts = [len(paths) for paths in found]
        if np.count_nonzero(counts) < 2:
            kinds = ", ".join(SUFFIXES)
            raise InputError(f"{root} does not hold two folders of speakers with {kinds} files; check --data_folder")
        codes = np.repeat(np.arange(len(speakers)), counts)
        paths = pd.Series(pd.arrays.ArrowExtensionArray(pa.chunked_array(found)))
        table = pd.DataFrame({"path": paths, "speaker": pd.Categorical.from_codes(codes, pd.Index(speakers))})
        return Corpus(self.name, (), table, root=root)


def _audio_files(root: Path, speaker: str) -> Iterator[str]:
    return (file.relative_to(root).as_posix() for file in walk(root / speaker, SUFFIXES))


def split_speakers(
    corpus: Corpus, valid_speakers: int, trial_pairs: int, seed: int
) -> tuple[dict[str, Corpus], pd.DataFrame]:
    """Split a corpus into training, validation and trials.

    Parameters
    ----------
    corpus : Corpus
        What is split.
    valid_speakers : int
        Speakers that are held out, of those with two utterances or more: pairs of their utterances are the trials.
    trial_pairs : int
        Pairs at most; half of them of one speaker, as far as there are as many.
    seed : int
        Of the draw.

    Returns
    -------
    parts : dict
        ``train``; ``valid``, one utterance of each training speaker that has three or more; ``trials``.
    pairs : pandas.DataFrame
        ``target`` (1: one speaker, 0: two), ``first``, ``second``: paths.

    Raises
    ------
    InputError
        If too few speakers have two utterances, or none that is trained on has three.
    """
    rng = np.random.default_rng(seed)
    codes, names = pd.factorize(corpus.table["speaker"])
    counts = np.bincount(codes)
    able = np.flatnonzero(counts > 1)
    if valid_speakers == 1 or len(able) < valid_speakers or len(names) - valid_speakers < 2:
        raise InputError(
            f"cannot hold out {valid_speakers} of {len(names)} speakers ({len(able)} of them with two utterances or "
            "more); give another --valid_speakers, from 2, or --trials_file"
        )
    held_out = np.isin(codes, rng.choice(able, valid_speakers, replace=False))
    shuffled = rng.permutation(len(codes))
    rank = np.empty(len(codes), dtype=np.int64)
    rank[shuffled] = pd.Series(codes[shuffled]).groupby(codes[shuffled]).cumcount()
    valid = ~held_out & (rank == 0) & (counts[codes] > 2)
    if not valid.any():
        raise InputError(
            "no speaker that is trained on has three utterances, of which one is for validation; give more utterances"
        )
    masks = {"train": ~held_out & ~valid, "valid": valid, "trials": held_out & (rank < TRIAL_UTTERANCES)}
    parts = {name: replace(corpus, table=corpus.table[mask]) for name, mask in masks.items()}
    return parts, _draw_pairs(parts["trials"].table, trial_pairs, rng)


def _draw_pairs(table: pd.DataFrame, count: int, rng: np.random.Generator) -> pd.DataFrame:
    paths, speakers = table["path"].to_numpy(dtype=object), pd.factorize(table["speaker"])[0]
    first, second = np.triu_indices(len(table), 1)
    same = speakers[first] == speakers[second]
    chosen = []
    for kind in (same, ~same):
        found = np.flatnonzero(kind)
        chosen.append(np.sort(rng.permutation(found)[: count // 2]))
    rows = np.concatenate(chosen)
    return pd.DataFrame({"target": same[rows].astype(int), "first": paths[first[rows]], "second": paths[second[rows]]})


def read_trials(file: str | Path, folder: str | Path) -> tuple[Corpus, pd.DataFrame]:
    """Read a list of trials as VoxCeleb's: ``1 speaker/video/a.wav speaker/video/b.wav`` a line.

    Parameters
    ----------
    file : str or pathlib.Path
        The list.
    folder : str or pathlib.Path
        Folder that its paths are below.

    Returns
    -------
    utterances : Corpus
        Each once.
    pairs : pandas.DataFrame
        ``target``, ``first``, ``second``.

    Raises
    ------
    InputError
        If a line is not of that form; the message names it.
    """
    try:
        lines = decode(Path(file).read_bytes(), str(file)).splitlines()
    except OSError as error:
        raise InputError(f"cannot read {file} ({error.strerror}); check --trials_file") from error
    rows = [line.split() for line in lines if line.strip()]
    for number, row in enumerate(rows, start=1):
        if len(row) != 3 or row[0] not in {"0", "1"}:
            raise InputError(f"{file}, trial {number}: give 0 or 1 and two paths, not {' '.join(row)!r}")
    pairs = pd.DataFrame(rows, columns=["target", "first", "second"]).astype({"target": int})
    paths = sorted(set(pairs["first"]) | set(pairs["second"]))
    table = pd.DataFrame({"path": paths, "speaker": [path.split("/")[0] for path in paths]})
    return Corpus(Path(file).name, (), table, root=Path(folder)), pairs
