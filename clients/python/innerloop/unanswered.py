"""The update whose answer never came, remembered so that repeating it changes nothing more."""

from dataclasses import replace
from hashlib import blake2b

from innerloop.calls import Call, Updated
from innerloop.errors import (
    AdaptationNotFoundError,
    ExamplesNotKeptError,
    InvalidArgumentError,
    ModelRetiredError,
    RevisionChangedError,
)
from innerloop.v1.adaptation_pb2 import UpdateAdaptationRequest

NOTHING_DONE = (
    InvalidArgumentError,
    AdaptationNotFoundError,
    ModelRetiredError,
    ExamplesNotKeptError,
    RevisionChangedError,
)
"""Answers that say that an update was not carried out. After all others, and none, it may have been."""


class Unanswered:
    """Gives an update that is sent again the request id that it had, by which the server knows it.

    Only the latest update that failed is known, and only until another one succeeds: whoever then adds the same example
    once more means it.
    """

    def __init__(self) -> None:
        self._content, self._request_id = b"", ""

    def named(self, call: Call[Updated]) -> Call[Updated]:
        """The call under the id of the one whose answer never came, if it asks for the same."""
        if not self._content or _content(call) != self._content:
            return call
        request = _copied(call)
        request.request_id = self._request_id
        return replace(call, request=request, request_id=self._request_id)

    def failed(self, call: Call[Updated], failure: BaseException) -> None:
        """Remember an update that may have been carried out."""
        if not isinstance(failure, NOTHING_DONE):
            self._content, self._request_id = _content(call), call.request_id

    def succeeded(self) -> None:
        """Forget what failed before."""
        self._content = b""


def _content(call: Call[Updated]) -> bytes:
    """What tells the content of an update from that of others, whatever its request id."""
    request = _copied(call)
    request.ClearField("request_id")
    return blake2b(request.SerializeToString(deterministic=True)).digest()


def _copied(call: Call[Updated]) -> UpdateAdaptationRequest:
    return UpdateAdaptationRequest.FromString(call.request.SerializeToString())
