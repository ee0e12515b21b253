"""How many cores there are, and what a computation takes of them."""

import os

MOST_THREADS = 4


def usable_cores() -> int:
    """Cores that this process may run on."""
    # Only Linux says which.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def lone_threads() -> int:
    """Threads of a computation that runs alone, unless settings say otherwise: half of the cores, but at most 4."""
    return min(max(usable_cores() // 2, 1), MOST_THREADS)
