"""The messages of one stream: requests made from pending queries, and responses read into their answers."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from innerloop.calls import explained, new_request_id
from innerloop.errors import InnerloopError, InvalidArgumentError, UnavailableError
from innerloop.examples import Names
from innerloop.pending_queries import PendingQueries, PendingQuery
from innerloop.predictions import Predictions
from innerloop.status import error_from_status
from innerloop.v1 import adaptation_pb2 as pb
from innerloop.wanted import Wanted

CLASSES_CHANGED = "CLASSES_CHANGED"
"""Reason of an error: an update has changed the classes since a request named the adaptation."""


@dataclass(eq=False, slots=True)
class _Naming:
    """A request that named an adaptation, and the classes that came with the first predictions after it."""

    adaptation_id: str
    classes: tuple[str, ...] | None = None


class OneStream:
    """Makes requests and reads responses of one stream.

    Args:
        pending: the queries.
        adaptation_id: returns the adaptation's present id.
        labels: the caller's own objects by their names on the wire.
        wanted: what answers shall carry.
        priority: of all requests.
    """

    def __init__(
        self,
        pending: PendingQueries,
        adaptation_id: Callable[[], str],
        labels: Mapping[str, Any],
        wanted: Wanted,
        priority: pb.Priority,
    ) -> None:
        self.request_id = new_request_id()
        self._pending = pending
        self._adaptation_id = adaptation_id
        self._labels = labels
        self._wanted = wanted
        self._priority = priority
        self._naming = _Naming("")
        self._namings: dict[int, _Naming] = {}

    def request(self, asked: PendingQuery) -> pb.StreamPredictRequest:
        """The message that asks a query."""
        present, named = self._adaptation_id(), ""
        if self._naming.adaptation_id != present:
            self._naming, named = _Naming(present), present
        self._namings[asked.sequence] = self._naming
        asked.asked = time.monotonic()
        return pb.StreamPredictRequest(
            sequence=asked.sequence,
            adaptation_id=named,
            query=asked.query.message,
            **self._wanted._asdict(),
            priority=self._priority,
        )

    def take(self, response: pb.StreamPredictResponse) -> None:
        """Note an answer.

        Raises:
            InnerloopError: it answers nothing that was asked.
        """
        asked = self._pending.find(response.sequence)
        naming = self._namings.pop(response.sequence, None)
        if asked is None or naming is None:
            raise InnerloopError(f"the server answered a question that was not asked ({response.sequence})")
        if response.HasField("error"):
            error = error_from_status(response.error, self.request_id)
            if error.reason == CLASSES_CHANGED and self._naming is naming:
                self._naming = _Naming("")  # the next request names the adaptation, and gets its new classes
            if isinstance(error, InvalidArgumentError):
                error = explained(error, Names("support example"), asked.query.names)
            asked.answer = error
            return
        if naming.classes is None:
            naming.classes = tuple(response.predictions.classes)
        asked.answer = Predictions(response.predictions, self._labels, response.timings, naming.classes)

    def finish(self) -> None:
        """The server has ended the stream without an error.

        Raises:
            UnavailableError: it had not answered everything.
        """
        if self._pending.oldest is not None:
            raise UnavailableError("the server ended the stream before it had answered", request_id=self.request_id)
