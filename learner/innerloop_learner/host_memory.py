"""Sets how a process that computes gets memory from the operating system."""

import ctypes

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
