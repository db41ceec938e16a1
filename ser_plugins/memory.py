"""How the C library keeps or returns freed memory."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # malloc.h of glibc


def keep_memory() -> bool:
    """Let the C library keep the memory that is freed, for what comes next; tell whether it does.

    By default glibc gives each large block back at once, and the kernel fills its pages with zeros again at the next
    step: up to a third of the time of training on a CPU.
    """
    return _mallopt(M_MMAP_MAX, 0) and _mallopt(M_TRIM_THRESHOLD, -1)


def return_memory() -> bool:
    """Let the C library give each large block back, whatever comes next; tell whether it does.

    By default glibc keeps more the larger the blocks are that it has seen, and blocks of ever other sizes leave holes
    between them: the memory of a long run grows.
    """
    return _mallopt(M_MMAP_THRESHOLD, 2**20)


def _mallopt(option: int, value: int) -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and bool(mallopt(option, value))
