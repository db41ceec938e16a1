"""Prepared audio: computed once, in parallel, and kept by content and settings."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from joblib import Parallel, cpu_count, delayed
from tqdm import tqdm

from ser_plugins.audio.reading import check_file, is_mpeg
from ser_plugins.audio.speech import TOGETHER, SpeechNormalizer, normalize_files
from ser_plugins.errors import InputError
from ser_plugins.files import atomic_write

CHUNK = 1 << 20  # bytes


def prepare(
    paths: Sequence[str | Path], normalizer: SpeechNormalizer, cache_folder: str | Path, workers: int | None = None
) -> list[Path]:
    """Normalise sound files, or find them normalised before.

    The cache is keyed by the bytes of a file and the normaliser's settings; its files are written whole or not at all,
    so that runs may share it.

    Parameters
    ----------
    paths : sequence of str or pathlib.Path
        Sound files.
    normalizer : SpeechNormalizer
        What is done to each.
    cache_folder : str or pathlib.Path
        Where the results are kept.
    workers : int, optional
        Processes; one a core where not given.

    Returns
    -------
    list of pathlib.Path
        One .npy file of float32 samples [T] for each path, in their order.

    Raises
    ------
    InputError
        If a file cannot be read or used; the message names it.
    """
    settings = json.dumps(normalizer.settings(), sort_keys=True).encode()
    with ThreadPoolExecutor() as pool:
        keys = list(pool.map(lambda path: _key(path, settings), paths))
    targets = [Path(cache_folder) / key[:2] / f"{key}.npy" for key in keys]
    # Files of the same content have one target.
    missing = {target: path for target, path in zip(targets, paths, strict=True) if not target.is_file()}
    if missing:
        jobs = cpu_count() if workers is None else workers
        groups = _like_sized(missing, min(TOGETHER, -(-len(missing) // jobs)))
        work = (delayed(_prepare)(group, normalizer) for group in groups)
        done = Parallel(n_jobs=min(jobs, len(groups)), return_as="generator_unordered")(work)
        with tqdm(total=len(missing), desc="preparing audio", unit="file") as progress, worker_deaths_named():
            for count in done:
                progress.update(count)
    return targets


@contextmanager
def worker_deaths_named() -> Iterator[None]:
    """Raise the death of a process of joblib's as an `InputError`."""
    try:
        yield
    except BrokenProcessPool as error:
        raise InputError(
            "a process that prepared audio died, perhaps of too little memory; run the same command again to go on, or "
            "cut long recordings"
        ) from error


def _key(path: str | Path, settings: bytes) -> str:
    head = check_file(os.fspath(path))
    # MP3s were once read by another decoder.
    digest = hashlib.sha256(settings + b"FFmpeg" * is_mpeg(os.fspath(path), head))
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _like_sized(files: Mapping[Path, str | Path], most: int) -> list[list[tuple[Path, str | Path]]]:
    """Put files of like size together: padding one to the length of another costs time."""
    ordered = sorted(files.items(), key=lambda item: os.path.getsize(item[1]))
    return [ordered[start : start + most] for start in range(0, len(ordered), most)]


def _prepare(files: Sequence[tuple[Path, str | Path]], normalizer: SpeechNormalizer) -> int:
    """Prepare some files, whose speech is found together; return how many."""
    for i, signal in normalize_files([path for _, path in files], normalizer):
        if isinstance(signal, InputError):
            raise signal
        content = io.BytesIO()
        np.save(content, signal.numpy())
        atomic_write(files[i][0], content.getvalue())
    return len(files)
