"""What a user can mend."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Something the user gave is unusable.

    The message is one line that names the thing and the remedy; the command line prints it and exits with an error.
    """


def is_disk_full(error: Exception) -> bool:
    """Say whether ``error`` comes from a full disk.

    Example
    -------
    >>> is_disk_full(OSError(errno.ENOSPC, "No space left on device")), is_disk_full(OSError(errno.ENOENT, "No file"))
    (True, False)
    """
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT}
    # torch.save fails in its own writer of archives, and says no more.
    return isinstance(error, RuntimeError) and "inline_container" in str(error)


@contextmanager
def disk_full_told(*folders: object) -> Iterator[None]:
    """Turn the error of a full disk into an `InputError` that names the folders written to."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if not is_disk_full(error):
            raise
        where = " or ".join(map(str, folders))
        raise InputError(f"no space left at {where}; free some, and run the same command again to go on") from error
