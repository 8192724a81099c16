"""Memory between two steps of a training, or two requests."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT = 2**29  # bytes: what is freed beyond them goes back to the system
LARGEST = 2**25  # bytes of one piece, the most that glibc allows: a larger one comes from the system each time


@cache
def keep_freed_memory() -> None:
    """Let this process keep memory that it frees, where its allocator is glibc's; elsewhere nothing is done.

    By default glibc gives freed memory back to the system, and asks for it again. A training step frees all that it
    has made, so the system would have to clear some thousand pages a step, for up to a third of its time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(TRIM_THRESHOLD, KEPT)
        mallopt(MMAP_THRESHOLD, LARGEST)
