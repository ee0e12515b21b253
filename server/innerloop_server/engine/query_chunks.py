"""How many queries are answered at a time: they don't depend on each other, but their activations take memory."""

from collections.abc import Iterator

EXAMPLES_AT_ONCE = 2048
"""Most queries, of all tasks of a batch together, that are answered at once, so that activations fit into memory."""


def query_chunks(tasks: int, queries: int) -> Iterator[slice]:
    """Ranges of the queries of a batch [tasks, queries] that are answered together."""
    size = max(EXAMPLES_AT_ONCE // tasks, 1)
    for start in range(0, max(queries, 1), size):
        yield slice(start, start + size)
