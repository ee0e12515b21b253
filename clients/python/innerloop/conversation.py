"""What is asked on streams and answered in any order, put back in order: the core of `PredictStream` and its twin."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from innerloop.calls import new_request_id
from innerloop.errors import InnerloopError, UnavailableError
from innerloop.predictions import Predictions
from innerloop.status import error_from_status
from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1.tensor_pb2 import Inputs

LOOK_AHEAD = 32
"""Queries that are taken from the caller before the first of them is answered; a server works on as many."""

TOO_LATE = "the answer did not come within the timeout"


@dataclass(eq=False, slots=True)
class Question:
    """One query of the caller.

    Attributes:
        sequence: its place among all queries.
        query: what is asked.
        asked: when it was sent last, on the monotonic clock.
        answer: what came back: an error of this query, or predictions.
    """

    sequence: int
    query: Inputs
    asked: float = field(default_factory=time.monotonic)
    answer: Predictions | InnerloopError | None = None


class Conversation:
    """Questions whose answers the caller does not have yet; they outlive the stream that they were asked on.

    One thread adds questions while another takes answers; every step is a single one for Python.
    """

    def __init__(self) -> None:
        self._questions: dict[int, Question] = {}
        self._first = 0
        self._next = 0

    @property
    def oldest(self) -> Question | None:
        """The question whose answer the caller gets next."""
        return self._questions.get(self._first)

    def add(self, query: Inputs) -> Question:
        """The caller's next question."""
        question = Question(self._next, query)
        self._questions[question.sequence] = question
        self._next += 1
        return question

    def close_oldest(self) -> None:
        """The caller gets its answer."""
        del self._questions[self._first]
        self._first += 1

    def find(self, sequence: int) -> Question | None:
        """The question of that place, while the caller has no answer to it."""
        return self._questions.get(sequence)

    def unanswered(self, place: int) -> Question | None:
        """The first question without an answer at or after a place; None when there is none yet."""
        waiting = (self._questions.get(sequence) for sequence in range(max(place, self._first), self._next))
        return next((question for question in waiting if question is not None and question.answer is None), None)


@dataclass(eq=False, slots=True)
class _Naming:
    """A request that named an adaptation, and the classes that came with the first predictions after it."""

    adaptation_id: str
    classes: tuple[str, ...] | None = None


class OneStream:
    """Questions of a conversation as they travel on one stream, and their answers.

    Args:
        conversation: whose questions.
        adaptation_id: tells the adaptation's present id.
        labels: the caller's own objects by their names on the wire.
        return_logits: whether to ask for logits.
    """

    def __init__(
        self,
        conversation: Conversation,
        adaptation_id: Callable[[], str],
        labels: Mapping[str, Any],
        return_logits: bool,
    ) -> None:
        self.request_id = new_request_id()
        self._conversation = conversation
        self._adaptation_id = adaptation_id
        self._labels = labels
        self._return_logits = return_logits
        self._naming = _Naming("")
        self._namings: dict[int, _Naming] = {}

    def request(self, question: Question) -> pb.StreamPredictRequest:
        """The message that asks a question."""
        present, named = self._adaptation_id(), ""
        if self._naming.adaptation_id != present:
            self._naming, named = _Naming(present), present
        self._namings[question.sequence] = self._naming
        question.asked = time.monotonic()
        return pb.StreamPredictRequest(
            sequence=question.sequence, adaptation_id=named, query=question.query, return_logits=self._return_logits
        )

    def take(self, response: pb.StreamPredictResponse) -> None:
        """Note an answer.

        Raises:
            InnerloopError: it answers nothing that was asked.
        """
        question = self._conversation.find(response.sequence)
        naming = self._namings.pop(response.sequence, None)
        if question is None or naming is None:
            raise InnerloopError(f"the server answered a question that was not asked ({response.sequence})")
        if response.HasField("error"):
            question.answer = error_from_status(response.error, self.request_id)
            return
        if naming.classes is None:
            naming.classes = tuple(response.predictions.classes)
        question.answer = Predictions(response.predictions, self._labels, response.timings, naming.classes)

    def finish(self) -> None:
        """The server has ended the stream without an error.

        Raises:
            UnavailableError: it had not answered everything.
        """
        if self._conversation.oldest is not None:
            raise UnavailableError("the server ended the stream before it had answered", request_id=self.request_id)


class Patience:
    """How long to wait for an answer: counted from the question, or from when the caller began to wait if later.

    Attributes:
        ended: whether the answer did not come in time.
    """

    def __init__(self, conversation: Conversation, seconds: float) -> None:
        self.ended = False
        self._conversation = conversation
        self._seconds = seconds
        self._since: float | None = None

    def begin(self) -> None:
        """The caller waits from now on."""
        self._since = time.monotonic()

    def pause(self) -> None:
        """The caller has something."""
        self._since = None

    def left(self) -> float:
        """Seconds after which it is worth looking again; zero when it has ended."""
        question, since = self._conversation.oldest, self._since
        if question is None or since is None:
            return self._seconds
        left = max(question.asked, since) + self._seconds - time.monotonic()
        self.ended = left <= 0
        return max(left, 0.0)
