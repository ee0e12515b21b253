"""Errors of requests, as types; the transport maps them to status codes in one place.

Messages go to clients: they never carry a path, a stack trace or a name of the code.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, NamedTuple

NO_FACTS: Mapping[str, str] = MappingProxyType({})


class ServerError(Exception):
    """A request that can't be answered, for a reason that its caller may know.

    Attributes:
        reason: stable word for programs.
        retry_after: seconds after which trying again makes sense; None when it does not.
        facts: that a program may need, by name.
    """

    reason: ClassVar[str]
    retry_after: float | None = None
    facts: Mapping[str, str] = NO_FACTS


class FieldViolation(NamedTuple):
    """One thing wrong with a request: the path of the field, and what is wrong with it."""

    field: str
    description: str


class InvalidRequestError(ServerError):
    """A request whose content does not make sense for its model."""

    reason = "INVALID_REQUEST"

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        super().__init__("; ".join(f"{field}: {description}" for field, description in violations))
        self.violations = tuple(violations)


def uncalibrated() -> InvalidRequestError:
    """The refusal of a coverage by a model that is not calibrated."""
    why = "can't be promised: this model is not calibrated; `innerloop calibrate` makes a bundle of it that is"
    return InvalidRequestError([FieldViolation("coverage", why)])


class ModelNotFoundError(ServerError):
    """No model of that name."""

    reason = "MODEL_NOT_FOUND"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"there is no model {name!r}; `innerloop models` lists those that there are. The server looks for new "
            "bundles when it starts, and while it runs with --watch"
        )


class ModelLoadingError(ServerError):
    """The model is there but not loaded yet."""

    reason = "MODEL_LOADING"

    def __init__(self, name: str, retry_after: float) -> None:
        super().__init__(f"model {name!r} is still loading; try again in {retry_after:.0f} s")
        self.retry_after = retry_after


class ModelFailedError(ServerError):
    """The model is there but its bundle was refused."""

    reason = "MODEL_FAILED"

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"model {name!r} could not be loaded: {why}")


class AdminDisabledError(ServerError):
    """The server allows no calls of admins."""

    reason = "ADMIN_DISABLED"

    def __init__(self) -> None:
        super().__init__(
            "this server lets no client load or unload models, set aliases or migrate adaptations; its operator allows "
            "that by starting it with --admin"
        )


class DownloadsDisabledError(ServerError):
    """The server gives no adaptation away."""

    reason = "DOWNLOADS_DISABLED"

    def __init__(self) -> None:
        super().__init__(
            "this server gives no adaptations away, since the graph of their model goes along; its operator allows it "
            "by starting it with --downloads"
        )


class UnauthenticatedError(ServerError):
    """The server doesn't know who makes a call; which part of a credential was wrong is nobody's business."""

    reason = "UNAUTHENTICATED"

    def __init__(self) -> None:
        super().__init__(
            "this server asks callers who they are: send a valid API key or token in the metadata "
            "`authorization: Bearer ...`"
        )


class ScopeMissingError(ServerError):
    """The caller's credential lacks the scope that a call needs."""

    reason = "SCOPE_MISSING"

    def __init__(self, scope: str) -> None:
        super().__init__(f"this call needs the scope {scope}, which your credential does not carry")


class NotAdminError(ServerError):
    """The caller lacks the scope of admins."""

    reason = "NOT_ADMIN"

    def __init__(self) -> None:
        super().__init__(
            "this call needs the scope admin, which the server's operator gives to API keys, to tokens, and to "
            "certificates by their subjects"
        )


class ModelRetiredError(ServerError):
    """The model's bundle is not the one any more that made the caller's adaptation."""

    reason = "MODEL_RETIRED"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"model {name!r} was replaced by another version since the adaptation was made; "
            "adapt again, or have the server's operator bring the old version back"
        )


class AdaptationNotFoundError(ServerError):
    """No adaptation of that id belongs to the caller."""

    reason = "ADAPTATION_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__(
            "there is no such adaptation: it was deleted, it is another caller's, "
            "or the server was started again since and keeps them in memory only; adapt again"
        )


class AdaptationEvictedError(ServerError):
    """The caller had this adaptation, but it expired or gave way to others."""

    reason = "ADAPTATION_EVICTED"

    def __init__(self) -> None:
        super().__init__("the adaptation has expired or was evicted; adapt again")


class AdaptationDamagedError(ServerError):
    """The record of this adaptation is damaged."""

    reason = "ADAPTATION_DAMAGED"

    def __init__(self) -> None:
        super().__init__("what the server kept of this adaptation is damaged; adapt again")


class RevisionChangedError(ServerError):
    """An adaptation has another revision than the caller expects."""

    reason = "REVISION_CHANGED"

    def __init__(self, expected: int, revision: int) -> None:
        super().__init__(
            f"the adaptation's revision is {revision}, not {expected}: somebody else has changed it; look at its "
            "examples (ListExamples) and update again, or update whichever revision it has (expected_revision 0)"
        )
        self.facts = {"revision": str(revision)}


class ExamplesNotKeptError(ServerError):
    """An update needs the examples of an adaptation, and the server has not kept them."""

    reason = "EXAMPLES_NOT_KEPT"

    def __init__(self, why: str = "the server has not kept the examples of this adaptation") -> None:
        super().__init__(
            f"{why}; send all that it shall have as `support` of UpdateAdaptation, which the SDK does by itself where "
            "the adaptation was made with it, or adapt again"
        )


class NotPortableError(ServerError):
    """An adaptation can't answer without the server."""

    reason = "NOT_PORTABLE"

    def __init__(self, why: str) -> None:
        super().__init__(f"the adaptation can't be downloaded: {why}")


class ClassesChangedError(ServerError):
    """An update has changed the classes of an adaptation since a stream was told them."""

    reason = "CLASSES_CHANGED"
    retry_after = 0.0

    def __init__(self) -> None:
        super().__init__(
            "the classes of the adaptation have changed; ask again, naming the adaptation again on this stream"
        )


class StoreUnavailableError(ServerError):
    """The store of adaptations can't be reached or has no room."""

    reason = "STORE_UNAVAILABLE"
    retry_after = 1.0

    def __init__(self) -> None:
        super().__init__("the server's store of adaptations is unavailable; try again later")


class AdaptationTooLargeError(ServerError):
    """One task state larger than all the memory there is for adaptations."""

    reason = "ADAPTATION_TOO_LARGE"

    def __init__(self, size: int, budget: int) -> None:
        super().__init__(
            f"the adaptation takes {size} bytes, the server keeps at most {budget} in all; "
            "use AdaptPredict without keep, or raise the server's adaptation_bytes"
        )


class TooManyAdaptationsError(ServerError):
    """The owner keeps as many adaptations as each owner may."""

    reason = "TOO_MANY_ADAPTATIONS"

    def __init__(self, most: int) -> None:
        super().__init__(
            f"you have as many adaptations as the server keeps for each owner ({most}); delete some that you do not "
            "need (ListAdaptations and DeleteAdaptation), or use AdaptPredict without keep"
        )


class DivergedError(ServerError):
    """Adapting led to numbers that are not finite."""

    reason = "ADAPTATION_DIVERGED"

    def __init__(self) -> None:
        super().__init__("the adaptation diverged: take fewer steps, or check the scale of the inputs")


class OverloadedError(ServerError):
    """Too many requests are waiting already, or come from the caller."""

    reason = "OVERLOADED"

    def __init__(self, retry_after: float, why: str = "too many requests are waiting") -> None:
        super().__init__(f"{why}; try again later")
        self.retry_after = retry_after


class DeadlinePassedError(ServerError):
    """The request's deadline passed before its turn came, so nothing was computed."""

    reason = "DEADLINE_PASSED"

    def __init__(self) -> None:
        super().__init__("the deadline passed before the request's turn came; nothing was computed")


class ShuttingDownError(ServerError):
    """The server is stopping."""

    reason = "SHUTTING_DOWN"
    retry_after = 1.0

    def __init__(self) -> None:
        super().__init__("the server is shutting down")
