"""The steps that both kinds of adaptations share."""

import os
import threading
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from numpy.typing import ArrayLike

from innerloop import calls
from innerloop.adaptation_info import NO_LABELS, AdaptationInfo
from innerloop.changes import Change, Example, check_revision
from innerloop.connection_core import ConnectionCore
from innerloop.diagnosis import Diagnosis
from innerloop.errors import (
    AdaptationNotFoundError,
    ExamplesNotKeptError,
    InnerloopError,
    InvalidArgumentError,
    ModelRetiredError,
    RevisionChangedError,
)
from innerloop.examples import EncodedExamples, Names
from innerloop.incoming_folder import IncomingFolder
from innerloop.inputs import Inputs
from innerloop.labels import refuse_clashes
from innerloop.own_examples import OwnExamples, UnknownExampleError
from innerloop.predictions import Predictions
from innerloop.recipe import Recipe, make_support, read_answers
from innerloop.retry import Deadline
from innerloop.steps import Steps
from innerloop.unanswered import NOTHING_DONE, Unanswered
from innerloop.wanted import Wanted


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
        self.labels = dict(labels)
        self._own = None if recipe is None else OwnExamples.of(recipe)
        self._lock = threading.Lock()
        self._unanswered = Unanswered()

    def predict_steps(
        self, inputs: Inputs, rate: int | None, wanted: Wanted, timeout: float | None
    ) -> Steps[Predictions]:
        """Answer queries, in as many requests as the server's limits ask for."""
        deadline = self.core.deadline(timeout)
        query = yield from self.core.read(self.info.model, inputs, Names("query"), deadline, rate)
        parts = yield from self.core.split(self.info.model, query, self._bytes_beside, deadline)
        return Predictions.joined((yield from self.predict_parts(parts, wanted, deadline, timeout)))

    def predict_parts(
        self, parts: Sequence[EncodedExamples], wanted: Wanted, deadline: Deadline, timeout: float | None
    ) -> Steps[list[Predictions]]:
        """Answer the parts one after another; without a timeout of the caller's, each may take the client's."""
        answers = []
        for part in parts:
            answers.append((yield from self.ask(part, wanted, deadline)))
            deadline = self.core.next_deadline(deadline, timeout)
        return answers

    def encode_steps(self, query: Inputs, rate: int | None, deadline: Deadline) -> Steps[EncodedExamples]:
        """Queries that make one request, ready to be sent."""
        examples = yield from self.core.read(self.info.model, query, Names("query"), deadline, rate)
        return examples.encoded()

    def ask(self, query: EncodedExamples, wanted: Wanted, deadline: Deadline) -> Steps[Predictions]:
        """Answer the queries of one request; when the server can't use the adaptation any more, make it again."""
        while True:
            asked = self.info
            question = calls.predict(asked.id, query, wanted=wanted, labels=self.labels)
            try:
                return (yield from self.core.call(question, deadline))
            except (AdaptationNotFoundError, ModelRetiredError) as gone:
                yield partial(self.core.acquire, self._lock, deadline)
                try:
                    if self.info is asked:  # otherwise another call was first: ask again
                        return (yield from self._remake(gone, query, wanted, deadline))
                finally:
                    self._lock.release()

    def download_steps(self, path: str | os.PathLike[str], timeout: float | None) -> Steps[None]:
        """Write the adaptation into a new folder, all of it or nothing."""
        with IncomingFolder(path) as folder:
            yield from self.core.call(calls.download(self.info.id, folder), self.core.deadline(timeout))

    def delete_steps(self, deadline: Deadline) -> Steps[None]:
        """Make the server forget it; nothing happens when the server has already."""
        yield partial(self.core.acquire, self._lock, deadline)
        try:
            self._own = None
            with suppress(AdaptationNotFoundError):
                yield from self.core.call(calls.delete_adaptation(self.info.id), deadline)
        finally:
            self._lock.release()

    @property
    def regresses(self) -> bool:
        """Whether its examples have targets instead of labels."""
        return not self.info.classes

    def update_steps(
        self,
        change: Change,
        expected_revision: int | None,
        timeout: float | None,
        inputs: Inputs | None = None,
        labels: Iterable[Hashable] | None = None,
        targets: ArrayLike | None = None,
        rate: int | None = None,
    ) -> Steps[tuple[int, ...]]:
        """Change the examples, and learn more of them; returns the ids of these.

        Other arguments as those of `Adaptation.add`.
        """
        expected, deadline = check_revision(expected_revision), self.core.deadline(timeout)
        if inputs is not None:
            answers = read_answers(labels, targets)
            examples = yield from self.core.read(self.info.model, inputs, answers.names, deadline, rate)
            self.core.check_size(self.info.model, examples)
            known = {**change.labels, **answers.originals}
            change = replace(change, add=make_support(examples, answers), labels=known, names=examples.names)
        elif labels is not None or targets is not None:
            raise InvalidArgumentError("there are labels or targets, and no inputs that they belong to")
        if change.nothing:
            raise InvalidArgumentError("name what to change: examples by their ids, classes by their labels")
        return (yield from self._update(change, expected, deadline))

    def _update(self, change: Change, expected: int, deadline: Deadline) -> Steps[tuple[int, ...]]:
        """Change the examples. What the server can't do without those that it lacks is done with those kept here."""
        yield partial(self.core.acquire, self._lock, deadline)
        try:
            refuse_clashes(self.labels, change.labels)
            # Whoever predicts meanwhile may get the new labels at any moment from now on.
            self.labels.update(change.labels)
            if self._own is not None:
                return (yield from self._update_own(self._own, change, expected, deadline))
            updated = yield from self._send(calls.update(self.info.id, change, expected, self.labels), deadline)
            self.info = updated.info
            return updated.example_ids
        finally:
            self._lock.release()

    def _send(
        self, sent: calls.Call[calls.Updated], deadline: Deadline, after: OwnExamples | None = None
    ) -> Steps[calls.Updated]:
        """Send an update. It happens once, even if it was sent before and its answer never came.

        `after` are the examples that there are then, where an update holds all of them.
        """
        sent = self._unanswered.named(sent)
        try:
            updated = yield from self.core.call(sent, deadline)
        except BaseException as failure:
            self._unanswered.failed(sent, failure, after)
            raise
        self._unanswered.succeeded()
        return updated

    def examples_steps(self, timeout: float | None) -> Steps[list[Example]]:
        """The examples that the adaptation has learned from."""
        deadline = self.core.deadline(timeout)
        try:
            listed = yield from self.core.call(calls.list_examples(self.info.id, self.labels), deadline)
        except (AdaptationNotFoundError, ModelRetiredError, ExamplesNotKeptError):
            if self._own is None:
                raise
            return self._own.listed(self.labels)
        own = self._own
        return listed if own is None else own.with_known_ids(listed)

    def diagnose_steps(self, timeout: float | None) -> Steps[Diagnosis]:
        """What the examples that the server keeps say about each other's labels."""
        found = yield from self.core.call(calls.diagnose(self.info.id, self.labels), self.core.deadline(timeout))
        own = self._own
        return found if own is None else found._replace(ids=own.with_own_ids(found.ids))

    def _update_own(
        self, own: OwnExamples, change: Change, expected: int, deadline: Deadline
    ) -> Steps[tuple[int, ...]]:
        """Change the examples on the server and here."""
        own.check(change)
        before = self.info
        try:
            sent = calls.update(before.id, own.for_server(change), expected, self.labels)
            updated = yield from self._send(sent, deadline)
        except ExamplesNotKeptError:
            return (yield from self._send_all(own, change, expected, deadline))
        except (AdaptationNotFoundError, ModelRetiredError):
            if expected not in (0, before.revision):
                raise
            after, added = own.changed(change)
            self.info = yield from self.core.call(calls.adapt(after.recipe), deadline)
            self._own = after.made_again()
            return added
        self.info = updated.info
        return (yield from self._follow(own, change, before.revision, updated, deadline))

    def _send_all(self, own: OwnExamples, change: Change, expected: int, deadline: Deadline) -> Steps[tuple[int, ...]]:
        """Put all examples in the place of those on the server, unless this client does not know these any more."""
        after, added = own.changed(change)
        sent = calls.update_all(self.info.id, after.recipe, expected or self.info.revision)
        try:
            updated = yield from self._send(sent, deadline, after)
        except RevisionChangedError as changed:
            self._own = None if expected else (yield from self._present(own, changed.revision, deadline))
            if self._own is None:
                raise
            after, added = self._own.changed(change)
            sent = calls.update_all(self.info.id, after.recipe, changed.revision)
            updated = yield from self._send(sent, deadline, after)
        self.info, self._own = updated.info, after.known_as(updated.example_ids)
        return added

    def _present(self, own: OwnExamples, revision: int, deadline: Deadline) -> Steps[OwnExamples | None]:
        """The examples of a revision that another update than the last answered one has made; None if they are unknown.

        They are those before, as after a move to another version of the model, or those of an update whose answer never
        came. Its request is repeated: the server knows it if it has made this revision, and otherwise refuses it.
        """
        if (yield from self._has_just(own, deadline)):
            return own
        unanswered, after = self._unanswered.call, self._unanswered.after
        if unanswered is None or after is None or revision != self.info.revision + 1:
            return None
        try:
            updated = yield from self.core.call(unanswered, deadline)
        except NOTHING_DONE:
            return None
        return after.known_as(updated.example_ids) if updated.info.revision == revision else None

    def _has_just(self, own: OwnExamples, deadline: Deadline) -> Steps[bool]:
        """Whether the server keeps just these examples, such as after a move to another version of the model."""
        try:
            listed = yield from self.core.call(calls.list_examples(self.info.id, self.labels), deadline)
        except InnerloopError:
            return False
        return own.agrees(listed, self.labels)

    def _follow(
        self, own: OwnExamples, change: Change, revision: int, updated: calls.Updated, deadline: Deadline
    ) -> Steps[tuple[int, ...]]:
        """Change the examples here as on the server, or give them up if somebody else has changed them there."""
        self._own = None
        try:
            after, added = own.changed(change, updated.example_ids)
        except UnknownExampleError:  # somebody else has added it
            return updated.example_ids
        if updated.info.revision == revision + 1:
            self._own = after
            return added
        if (yield from self._has_just(after, deadline)):
            self._own = after
            return added
        return updated.example_ids

    def _remake(
        self,
        gone: AdaptationNotFoundError | ModelRetiredError,
        query: EncodedExamples,
        wanted: Wanted,
        deadline: Deadline,
    ) -> Steps[Predictions]:
        """Adapt again and ask, under a new request id: the old one would name what is gone."""
        if self._own is None:
            raise gone
        remake = calls.adapt_again(self._own.recipe, query, wanted=wanted)
        info, predictions = yield from self.core.call(remake, deadline)
        self.info = replace(info, diagnosis=self.info.diagnosis)  # that of the same examples
        self._own = self._own.made_again()
        return predictions

    def _bytes_beside(self) -> int:
        """Bytes that a request carries besides its queries when it has to make the adaptation again."""
        return self._own.recipe.support.ByteSize() if self._own is not None else 0
