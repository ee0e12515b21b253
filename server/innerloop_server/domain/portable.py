"""Adaptations as files that answer without the server."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GraphFile:
    """The graph of a model that answers queries, where it lies on this machine.

    Attributes:
        path: of the file.
        size: bytes that it has.
        digest: SHA-256 that it had when the model was loaded, in hexadecimal digits.
    """

    path: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class NoGraph:
    """A model that has no such graph.

    Attributes:
        why: reason, and what to do, for callers.
    """

    why: str


@dataclass(frozen=True, slots=True)
class PortableAdaptation:
    """An adaptation of one revision as files.

    Attributes:
        model: name of its model.
        description: JSON that says whose answers it gives.
        state: its task state as an archive of NumPy's arrays.
        graph: of its model.
    """

    model: str
    description: bytes
    state: bytes
    graph: GraphFile
