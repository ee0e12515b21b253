"""The update whose answer never came, remembered so that repeating it changes nothing more."""

from dataclasses import replace

from innerloop.calls import Call, Updated
from innerloop.errors import (
    AdaptationNotFoundError,
    ExamplesNotKeptError,
    InvalidArgumentError,
    ModelRetiredError,
    RevisionChangedError,
)
from innerloop.own_examples import OwnExamples
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

    Attributes:
        call: that update; None if there is none.
        after: the examples that there are after it, if it holds all of them.
    """

    def __init__(self) -> None:
        self.call: Call[Updated] | None = None
        self.after: OwnExamples | None = None

    def named(self, call: Call[Updated]) -> Call[Updated]:
        """The call under the id of the one whose answer never came, if it asks for the same."""
        if self.call is None or _content(call) != _content(self.call):
            return call
        return replace(call, request=self.call.request, request_id=self.call.request_id)

    def failed(self, call: Call[Updated], failure: BaseException, after: OwnExamples | None) -> None:
        """Remember an update that may have been carried out."""
        if not isinstance(failure, NOTHING_DONE):
            self.call, self.after = call, after

    def succeeded(self) -> None:
        """Forget what failed before."""
        self.call = self.after = None


def _content(call: Call[Updated]) -> UpdateAdaptationRequest:
    """What an update asks for, whatever its request id."""
    request = UpdateAdaptationRequest.FromString(call.request.SerializeToString())
    request.ClearField("request_id")
    return request
