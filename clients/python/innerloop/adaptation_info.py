"""A server's description of an adaptation."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from innerloop.diagnosis import Diagnosis
from innerloop.timings import Timings
from innerloop.v1 import adaptation_pb2 as pb

NO_LABELS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class AdaptationInfo:
    """An adaptation as the server described it.

    Attributes:
        id: names it, for whoever made it only.
        model: the model it adapts.
        model_version: the version it was made with.
        classes: the labels, in the order of every probability vector; empty for regression.
        support_size: labelled examples it learned from.
        steps: inner-loop steps taken.
        support_losses: mean support loss before each step; empty for methods without steps.
        size_bytes: memory it takes on the server.
        create_time: when it was made.
        expire_time: when it expires if it is not used before; None for never.
        timings: where the time of making it went; None when it was looked up.
        revision: counts the changes of its content; the first is 1.
        example_weights: what each support example counted, in their order: 1 on average over each class, and less where
            a label may be wrong. Empty for models that trust every label, for adaptations from a list, and from servers
            before there were weights.
        diagnosis: what the support examples say about each other's labels; None if it was not asked for, and once the
            examples have changed.
    """

    id: str
    model: str
    model_version: str
    classes: tuple[Any, ...]
    support_size: int
    steps: int
    support_losses: tuple[float, ...]
    size_bytes: int
    create_time: datetime
    expire_time: datetime | None
    timings: Timings | None
    revision: int = 1
    example_weights: tuple[float, ...] = ()
    diagnosis: Diagnosis | None = None

    @classmethod
    def from_message(
        cls, message: pb.Adaptation, labels: Mapping[str, Any] = NO_LABELS, timings: pb.Timings | None = None
    ) -> "AdaptationInfo":
        """Read the wire form, with the caller's own objects for the labels it has names of."""
        return cls(
            id=message.id,
            model=message.model,
            model_version=message.model_version,
            classes=tuple(labels.get(name, name) for name in message.classes),
            support_size=message.support_size,
            steps=message.steps,
            support_losses=tuple(message.support_losses),
            size_bytes=message.size_bytes,
            create_time=message.create_time.ToDatetime(UTC),
            expire_time=message.expire_time.ToDatetime(UTC) if message.HasField("expire_time") else None,
            timings=Timings.from_message(timings) if timings is not None else None,
            revision=message.revision or 1,  # servers before there were revisions say nothing
            example_weights=tuple(message.example_weights),
        )
