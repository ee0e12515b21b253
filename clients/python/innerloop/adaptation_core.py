"""The steps that both kinds of adaptations share."""

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from innerloop import calls
from innerloop.adaptation_info import NO_LABELS, AdaptationInfo
from innerloop.connection_core import ConnectionCore
from innerloop.errors import AdaptationNotFoundError, ModelRetiredError
from innerloop.examples import EncodedExamples, Names
from innerloop.inputs import Inputs
from innerloop.predictions import Predictions
from innerloop.recipe import Recipe
from innerloop.retry import Deadline
from innerloop.steps import Steps


class AdaptationCore:
    """An adaptation's description, the caller's labels, and how to make it again.

    Args:
        connection: the connection to the server.
        info: what the server said when the adaptation was made or looked up.
        labels: the caller's own objects by their names on the wire.
        recipe: how to make it again; None for never.
    """

    def __init__(
        self,
        connection: ConnectionCore,
        info: AdaptationInfo,
        labels: Mapping[str, Any] = NO_LABELS,
        recipe: Recipe | None = None,
    ) -> None:
        self.core = connection
        self.info = info
        self.labels = labels
        self._recipe = recipe
        self._lock = threading.Lock()

    def predict_steps(
        self, inputs: Inputs, rate: int | None, return_logits: bool, timeout: float | None
    ) -> Steps[Predictions]:
        """Answer queries, in as many requests as the server's limits ask for."""
        deadline = self.core.deadline(timeout)
        query = yield from self.core.read(self.info.model, inputs, Names("query"), deadline, rate)
        parts = yield from self.core.split(self.info.model, query, self._bytes_beside, deadline)
        return Predictions.joined((yield from self.predict_parts(parts, return_logits, deadline, timeout)))

    def predict_parts(
        self, parts: Sequence[EncodedExamples], return_logits: bool, deadline: Deadline, timeout: float | None
    ) -> Steps[list[Predictions]]:
        """Answer the parts one after another; without a timeout of the caller's, each may take the client's."""
        answers = []
        for part in parts:
            answers.append((yield from self.ask(part, return_logits, deadline)))
            deadline = self.core.next_deadline(deadline, timeout)
        return answers

    def encode_steps(self, query: Inputs, rate: int | None, deadline: Deadline) -> Steps[EncodedExamples]:
        """Queries that make one request, ready to be sent."""
        examples = yield from self.core.read(self.info.model, query, Names("query"), deadline, rate)
        return examples.encoded()

    def ask(self, query: EncodedExamples, return_logits: bool, deadline: Deadline) -> Steps[Predictions]:
        """Answer the queries of one request; when the server can't use the adaptation any more, make it again."""
        while True:
            asked = self.info
            question = calls.predict(asked.id, query, return_logits=return_logits, labels=self.labels)
            try:
                return (yield from self.core.call(question, deadline))
            except (AdaptationNotFoundError, ModelRetiredError) as gone:
                yield partial(self.core.acquire, self._lock, deadline)
                try:
                    if self.info is asked:  # otherwise another call was first: ask again
                        return (yield from self._remake(gone, query, return_logits, deadline))
                finally:
                    self._lock.release()

    def delete_steps(self, deadline: Deadline) -> Steps[None]:
        """Make the server forget it; nothing happens when the server has already."""
        yield partial(self.core.acquire, self._lock, deadline)
        try:
            self._recipe = None
            with suppress(AdaptationNotFoundError):
                yield from self.core.call(calls.delete_adaptation(self.info.id), deadline)
        finally:
            self._lock.release()

    def _remake(
        self,
        gone: AdaptationNotFoundError | ModelRetiredError,
        query: EncodedExamples,
        return_logits: bool,
        deadline: Deadline,
    ) -> Steps[Predictions]:
        """Adapt again and ask, under a new request id: the old one would name what is gone."""
        if self._recipe is None:
            raise gone
        remake = calls.adapt_again(self._recipe, query, return_logits=return_logits)
        self.info, predictions = yield from self.core.call(remake, deadline)
        return predictions

    def _bytes_beside(self) -> int:
        """Bytes that a request carries besides its queries when it has to make the adaptation again."""
        return self._recipe.support.ByteSize() if self._recipe is not None else 0
