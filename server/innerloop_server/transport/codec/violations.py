"""Collects everything that is wrong with a request, so that its sender can mend it in one go."""

from innerloop_server.domain.errors import FieldViolation, InvalidRequestError

MOST_NAMED = 20
"""Most files that a refusal names, so that its sender can mend all at once; the headers of an answer hold few more."""


class Violations:
    """The violations found in one request."""

    def __init__(self) -> None:
        self._found: list[FieldViolation] = []

    def add(self, field: str, description: str) -> None:
        """Note that the field at this path is wrong."""
        self._found.append(FieldViolation(field, description))

    def check(self) -> None:
        """Raise InvalidRequestError if anything was wrong."""
        if self._found:
            raise InvalidRequestError(self._found)
