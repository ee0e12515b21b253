"""Adaptations as their owners see them, and how they shall be kept."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RequestKey:
    """Names one Adapt request, so that repeating it returns what it made the first time.

    Attributes:
        owner: who asks.
        request_id: made by the client.
    """

    owner: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Adaptation:
    """An adaptation as its owner may see it.

    Attributes:
        id: unguessable.
        model: name of the model that adapted.
        model_version: of its bundle.
        classes: labels in the order of probability vectors; empty for regression.
        support_size: examples adapted on.
        steps: inner steps taken.
        losses: mean support loss before each step.
        size_bytes: memory its task state takes.
        created_ns: wall-clock time it was made; no two of one server are equal.
        expires_ns: wall-clock time it ends unless it is used before; None for never.
        revision: counts the changes of its content; the first is 1.
        example_weights: what each support example counted, 1 on average over each class; empty if all of a class
            counted the same, and in a list of many adaptations.
    """

    id: str
    model: str
    model_version: str
    classes: tuple[str, ...]
    support_size: int
    steps: int
    losses: tuple[float, ...]
    size_bytes: int
    created_ns: int
    expires_ns: int | None
    revision: int = 1
    example_weights: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class KeepOptions:
    """How an adaptation shall be kept.

    Attributes:
        time_to_live: seconds that it lives without being used; zero for ever.
        request_id: names the request, so that repeating it does not adapt twice; empty when it may.
        fingerprint: of the request's content.
        forget_examples: whether the support set must not be kept.
    """

    time_to_live: float
    request_id: str = ""
    fingerprint: bytes = b""
    forget_examples: bool = False
