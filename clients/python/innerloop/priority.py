"""How urgent a client's requests are."""

from typing import Any, Literal, get_args

from google.protobuf.message import Message

from innerloop.errors import InvalidArgumentError
from innerloop.v1 import adaptation_pb2 as pb

Priority = Literal["batch", "normal", "interactive"]
"""How urgent requests are among those of the same caller."""

_NUMBERS = {
    "batch": pb.PRIORITY_BATCH,
    "normal": pb.PRIORITY_UNSPECIFIED,  # which servers that know no priorities understand, too
    "interactive": pb.PRIORITY_INTERACTIVE,
}


def check_priority(priority: Priority) -> pb.Priority:
    """A priority as it travels.

    Raises:
        InvalidArgumentError: there is none of that name.
    """
    if priority not in get_args(Priority):
        raise InvalidArgumentError(f"priority must be one of {', '.join(get_args(Priority))}; it is {priority!r}")
    return _NUMBERS[priority]


def set_priority(request: Message, priority: pb.Priority) -> None:
    """Give a request a priority, if requests of its kind have one."""
    asked: Any = request
    if priority and "priority" in request.DESCRIPTOR.fields_by_name:
        asked.priority = priority
