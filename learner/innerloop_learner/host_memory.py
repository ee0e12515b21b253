"""The memory of this process: how it is got from the operating system and given back, and how much there is."""

import ctypes
import os
from pathlib import Path

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Numbers of two parameters of the C function mallopt(3)."""

KEPT_BYTES = 2**30
"""Most bytes of freed memory that the C library keeps: more than the activations of a batch take."""


def keep_freed_memory() -> None:
    """Let the C library keep up to a gigabyte of freed memory for the next allocation.

    Activations are allocated and freed for every batch. By default glibc gives blocks of that size back to the kernel
    at once, and the page faults of the next batch take a quarter of the time of a Conv4 on a CPU (measured). Other C
    libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(MMAP_THRESHOLD, KEPT_BYTES)


def give_back_freed_memory() -> None:
    """Give the operating system what the C library has kept; the next allocations take it anew."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def resident_bytes() -> int | None:
    """Bytes of memory that this process takes; None where the system doesn't tell."""
    statistics = Path("/proc/self/statm")
    if not statistics.is_file():
        return None  # only Linux tells
    return int(statistics.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
