"""Archives from the network: with progress, resumed where interrupted, checked, unpacked whole or not at all."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

from ser_plugins.errors import InputError

CHUNK = 1 << 20


@dataclass(frozen=True)
class Archive:
    """A .zip file on the network."""

    url: str
    md5: str
    size: int

    @property
    def name(self) -> str:
        """File name."""
        return self.url.rsplit("/", maxsplit=1)[-1]


def fetch(archive: Archive, folder: Path) -> None:
    """Download and unpack into ``folder/<stem of the archive>``, unless that is there.

    Raises
    ------
    InputError
        If the network fails (the next call continues the download) or the checksum differs.
    """
    target = folder / Path(archive.name).stem
    if target.is_dir():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {folder} ({error.strerror}); give another --data_folder") from error
    zipped = folder / f"{archive.name}.part"
    _receive(archive, zipped)
    if _md5(zipped) != archive.md5:
        zipped.unlink()
        raise InputError(f"{archive.url}: the checksum differs and the file was deleted; run the same command again")
    unpacked = folder / f".{target.name}.part"
    shutil.rmtree(unpacked, ignore_errors=True)
    with zipfile.ZipFile(zipped) as content:
        for member in tqdm(content.infolist(), desc=f"unpacking {archive.name}", unit="file"):
            content.extract(member, unpacked)
    unpacked.rename(target)
    zipped.unlink()


def _receive(archive: Archive, part: Path) -> None:
    have = part.stat().st_size if part.is_file() else 0
    if have >= archive.size:
        return
    request = Request(archive.url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urlopen(request, timeout=60) as answer:
            resumed = answer.status == HTTPStatus.PARTIAL_CONTENT
            start = have if resumed else 0
            with (
                part.open("ab" if resumed else "wb") as file,
                tqdm(total=archive.size, initial=start, desc=archive.name, unit="B", unit_scale=True) as bar,
            ):
                while chunk := answer.read(CHUNK):
                    bar.update(file.write(chunk))
        if part.stat().st_size < archive.size:  # a connection that ends early looks like the end of the file
            raise ConnectionError("the connection ended early")
    except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
        raise InputError(f"cannot download {archive.url} ({error}); run the same command again to go on") from error


def _md5(path: Path) -> str:
    digest = hashlib.md5()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
