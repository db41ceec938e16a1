"""Text of the user's, which is to be UTF-8."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ser_plugins.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32"}

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def decode(data: bytes, name: str) -> str:
    """Decode UTF-8, with or without a byte order mark.

    Parameters
    ----------
    data : bytes
        The text.
    name : str
        Where it is from, for messages.

    Raises
    ------
    InputError
        If it is of another encoding; the message names it where it can be known.

    Example
    -------
    >>> decode("\ufeffpath".encode(), "table.csv")
    'path'
    """
    found = [encoding for mark, encoding in MARKS.items() if data.startswith(mark)]
    if not found and len(data) > 1 and not (any(data[:200:2]) and any(data[1:200:2])):
        found = ["UTF-16 without a byte order mark"]
    if found:
        raise InputError(f"{name} is {found[-1]}, not UTF-8; save it as UTF-8")
    if b"\0" in data:
        raise InputError(f"{name} is no text; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{name} is not UTF-8: byte 0x{data[error.start]:02x} in line {line}; save it as UTF-8 "
            "(if it is Windows-1252: iconv -f WINDOWS-1252 -t UTF-8)"
        ) from error


def read_csv(text: str, name: str, dtype: Mapping[str, type] | type) -> pd.DataFrame:
    r"""Read a CSV table with a header; empty cells are missing, and empty rows are skipped.

    Parameters
    ----------
    text : str
        The table.
    name : str
        Its name, for the message.
    dtype : type or mapping of str to type
        Type of all columns, or of some by their names. As text, NA, None and 007 are names.

    Raises
    ------
    InputError
        If the header is separated by something else than commas.

    Example
    -------
    >>> read_csv("id,predicted\n007,sad\n,\n", "table.csv", str).to_dict("records")
    [{'id': '007', 'predicted': 'sad'}]
    """
    import pandas as pd  # noqa: PLC0415 — `decode` does without

    header = text.split("\n", maxsplit=1)[0]
    for separator, word in SEPARATORS.items():
        if separator in header and "," not in header:
            raise InputError(f"{name} is separated by {word}; separate it by commas")
    table = pd.read_csv(io.StringIO(text), dtype=dtype, keep_default_na=False, na_values=[""], skipinitialspace=True)
    return table.dropna(how="all", ignore_index=True)  # spreadsheets write empty rows as commas
