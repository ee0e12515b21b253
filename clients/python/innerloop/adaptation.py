"""Adapted models, ready for questions."""

import os
from collections.abc import AsyncIterable, AsyncIterator, Hashable, Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import Any, Self

from numpy.typing import ArrayLike

from innerloop.adaptation_core import AdaptationCore
from innerloop.adaptation_info import NO_LABELS, AdaptationInfo
from innerloop.async_connection import AsyncConnection
from innerloop.changes import Change, Example, read_changes, read_relabelling, read_removal
from innerloop.connection import Connection
from innerloop.diagnosis import Diagnosis
from innerloop.errors import InnerloopError
from innerloop.inputs import Inputs
from innerloop.predict_stream import AsyncPredictStream, PredictStream
from innerloop.predictions import Predictions
from innerloop.recipe import Recipe
from innerloop.suggestions import worth_labels
from innerloop.wanted import read_wanted


class AdaptationHandle:
    """Properties that `Adaptation` and `AsyncAdaptation` share."""

    _core: AdaptationCore

    @property
    def info(self) -> AdaptationInfo:
        """All that the server said last; another id after the adaptation had to be made again."""
        return self._core.info

    @property
    def id(self) -> str:
        """Its present id."""
        return self.info.id

    @property
    def model(self) -> str:
        """The model it adapts."""
        return self.info.model

    @property
    def classes(self) -> tuple[Any, ...]:
        """The labels, in the order of every probability vector; empty for regression."""
        return self.info.classes

    @property
    def support_losses(self) -> tuple[float, ...]:
        """Mean support loss before each inner step; empty for methods without steps."""
        return self.info.support_losses

    @property
    def example_weights(self) -> tuple[float, ...]:
        """What each support example counted: about 0 where its label seems wrong, 1 on average over each class.

        Empty for models that trust every label, and for adaptations from a list.
        """
        return self.info.example_weights

    @property
    def diagnosis(self) -> Diagnosis | None:
        """What the support examples say about each other's labels, if `Client.adapt` was asked to `diagnose`.

        None if it was not, and once the examples have changed.
        """
        return self.info.diagnosis

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r}, model={self.model!r}, classes={self.classes!r})"


class Adaptation(AdaptationHandle):
    """An adapted model on the server, ready for questions from any number of threads.

    When the server has dropped it, `predict` adapts again from the support set kept here, once for all threads. Used
    as a context manager, it is deleted at the end; should that fail after an error inside, the error inside counts.
    """

    def __init__(
        self,
        connection: Connection,
        info: AdaptationInfo,
        labels: Mapping[str, Any] = NO_LABELS,
        recipe: Recipe | None = None,
    ) -> None:
        self._connection = connection
        self._core = AdaptationCore(connection, info, labels, recipe)

    def predict(
        self,
        inputs: Inputs,
        *,
        rate: int | None = None,
        return_logits: bool = False,
        coverage: float | None = None,
        timeout: float | None = None,
    ) -> Predictions:
        """Answer queries.

        Args:
            inputs: any number of queries, in any form that `Client.adapt` takes. They are sent in as many requests as
                the server's limits ask for, one after another.
            rate: as in `Client.adapt`.
            return_logits: whether to get the raw logits too.
            coverage: share of queries, from 0.5 to 0.99, for which the sets of labels, or for regression the intervals,
                that come with the answers shall hold the truth; None for none. Only calibrated models can.
            timeout: seconds for all of them; when None, the client's default for each request.

        Raises:
            AdaptationNotFoundError, ModelRetiredError: the server has dropped it or the version of its model, and it
                was deleted here or can't be made again.
        """
        return self._connection.run(
            self._core.predict_steps(inputs, rate, read_wanted(return_logits, coverage), timeout)
        )

    def predict_stream(
        self,
        queries: Iterable[Inputs],
        *,
        rate: int | None = None,
        return_logits: bool = False,
        coverage: float | None = None,
        timeout: float | None = None,
    ) -> Iterator[Predictions]:
        """Answer many queries, one by one and in their order: quicker than `predict` for each when they are small.

        They travel on one stream, which is opened again should it break. `queries` may go on for ever: it is read in
        another thread, at most 32 queries ahead of the answers, and each answer is given as soon as it and those
        before it are there. Nothing is sent before the first answer is asked for; leaving the loop ends the stream.

        Args:
            queries: each in any form that `predict` takes, as many as go into one request.
            rate: as in `Client.adapt`; the same for all.
            return_logits: whether to get the raw logits too.
            coverage: as in `predict`.
            timeout: seconds to wait for an answer; the client's default when None.

        Raises:
            What `predict` raises for the first query that fails, after the answers to those before it; and what
            reading `queries` raises.
        """
        return PredictStream(
            self._connection, self._core, queries, rate, read_wanted(return_logits, coverage), timeout
        ).answers()

    def suggest(self, inputs: Inputs, n: int, *, rate: int | None = None, timeout: float | None = None) -> list[int]:
        """The places of `n` of many unlabelled inputs whose labels would help most, the most helpful first.

        They are those that the adaptation is least decided about, and different from each other: see
        `innerloop.suggestions.worth_labels`. Label them, `add` them, and ask again.

        Args:
            inputs: the inputs to choose from, as in `predict`, which answers all of them.
            n: how many.
            rate: as in `Client.adapt`.
            timeout: as in `predict`.

        Raises:
            MissingAnswerError: the model regresses.
            InvalidArgumentError: there are fewer than `n` inputs.
        """
        return worth_labels(self.predict(inputs, rate=rate, timeout=timeout).probabilities, n)

    def add(
        self,
        inputs: Inputs,
        labels: Iterable[Hashable] | None = None,
        *,
        targets: ArrayLike | None = None,
        rate: int | None = None,
        expected_revision: int | None = None,
        timeout: float | None = None,
    ) -> tuple[int, ...]:
        """Learn more examples; a label that is new makes a new class. The id stays, and the revision counts up.

        Whoever predicts meanwhile gets the answers of the revision before or of the new one.

        Args:
            inputs: as in `Client.adapt`.
            labels: as in `Client.adapt`.
            targets: as in `Client.adapt`.
            rate: as in `Client.adapt`.
            expected_revision: `info.revision` that the adaptation must have; None for any.
            timeout: seconds; the client's default when None.

        Returns:
            the ids of these examples, for `remove` and `relabel`; empty if nobody keeps them.

        Raises:
            RevisionChangedError: somebody else has changed it; nothing was done.
            ExamplesNotKeptError: neither the server nor this client has the examples before.
            InvalidArgumentError: the model does not take so many classes or examples.
        """
        steps = self._core.update_steps(Change(), expected_revision, timeout, inputs, labels, targets, rate)
        return self._connection.run(steps)

    def remove(
        self,
        examples: Iterable[int] = (),
        *,
        classes: Iterable[Hashable] = (),
        expected_revision: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Forget examples by their ids, and classes by their labels. A class whose last example goes is gone.

        `expected_revision`, `timeout` and errors are as in `add`; InvalidArgumentError where one is not there.
        """
        change = read_removal(examples, classes)
        self._connection.run(self._core.update_steps(change, expected_revision, timeout))

    def relabel(
        self,
        examples: Iterable[int] = (),
        labels: Iterable[Hashable] | None = None,
        *,
        targets: ArrayLike | None = None,
        classes: Mapping[Any, Hashable] | None = None,
        expected_revision: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Give examples other answers, and classes other labels.

        Args:
            examples: ids.
            labels: classification: a label for each of these.
            targets: regression: a target for each of these.
            classes: new labels by old ones; where the new one is there already, both classes become one.
            expected_revision: as in `add`.
            timeout: seconds; the client's default when None.

        Raises:
            What `add` raises, and InvalidArgumentError where an example or a class is not there.
        """
        change = read_relabelling(examples, labels, targets, classes)
        self._connection.run(self._core.update_steps(change, expected_revision, timeout))

    def examples(self, *, timeout: float | None = None) -> list[Example]:
        """The examples that it has learned from, in the order in which they came.

        Raises:
            ExamplesNotKeptError: neither the server nor this client has kept them.
        """
        return self._connection.run(self._core.examples_steps(timeout))

    def diagnose(self, *, timeout: float | None = None) -> Diagnosis:
        """What the examples that it has now say about each other's labels, as `Client.adapt(..., diagnose=True)` does.

        The server adapts once more for each of them then, or 100 times to parts of them. `ids` of the result name
        examples: `adaptation.remove(found.ids[place] for place in found.doubtful())`.

        Args:
            timeout: seconds; the client's default when None.

        Raises:
            ExamplesNotKeptError: the server has not kept the examples.
            InvalidArgumentError: the model regresses, or there are more than 500 examples.
        """
        return self._connection.run(self._core.diagnose_steps(timeout))

    def update(
        self,
        inputs: Inputs | None = None,
        labels: Iterable[Hashable] | None = None,
        *,
        targets: ArrayLike | None = None,
        rate: int | None = None,
        remove: Iterable[int] = (),
        remove_classes: Iterable[Hashable] = (),
        relabel: Mapping[int, Any] | None = None,
        rename: Mapping[Any, Hashable] | None = None,
        expected_revision: int | None = None,
        timeout: float | None = None,
    ) -> tuple[int, ...]:
        """All that `add`, `remove` and `relabel` do, as one revision: all of it happens or nothing.

        Args:
            inputs: examples to learn from as well, as in `add`; None for none.
            labels: as in `add`.
            targets: as in `add`.
            rate: as in `add`.
            remove: ids of examples to forget.
            remove_classes: labels whose examples to forget.
            relabel: other labels, or numbers as targets, by the ids of examples.
            rename: new labels of classes by old ones.
            expected_revision: as in `add`.
            timeout: seconds; the client's default when None.

        Returns:
            the ids of the added examples, and raises what `add`, `remove` and `relabel` raise.
        """
        change = read_changes(remove, remove_classes, relabel, rename, regresses=self._core.regresses)
        return self._connection.run(
            self._core.update_steps(change, expected_revision, timeout, inputs, labels, targets, rate)
        )

    def download(self, path: str | os.PathLike[str], *, timeout: float | None = None) -> None:
        """Take it home: a folder that answers as the server does, without it, wherever ONNX Runtime runs.

        The folder holds the graph of the model (`predict.onnx`), the task state (`state.npz`), labels, revision and
        format of inputs (`adaptation.json`), and a script (`predict.py`) that needs NumPy and ONNX Runtime. Later
        changes of the adaptation don't reach it.

        Args:
            path: of the folder, which must not be there yet. It is there only once all of it has come.
            timeout: seconds for all of it; the client's default when None.

        Raises:
            PermissionDeniedError: the server's operator does not allow it.
            FailedPreconditionError: the model has no graph that answers alone; the message says what to do.
            InvalidArgumentError: the folder is there, or can't be written.
        """
        self._connection.run(self._core.download_steps(path, timeout))

    def delete(self, *, timeout: float | None = None) -> None:
        """Make the server forget it; does nothing when the server has already."""
        self._connection.run(self._core.delete_steps(self._connection.deadline(timeout)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # What went wrong inside matters more than that the server can't be told to forget.
        with suppress(InnerloopError) if error is not None else nullcontext():
            self.delete()


class AsyncAdaptation(AdaptationHandle):
    """The twin of `Adaptation` for event loops; as an asynchronous context manager, it is deleted at the end."""

    def __init__(
        self,
        connection: AsyncConnection,
        info: AdaptationInfo,
        labels: Mapping[str, Any] = NO_LABELS,
        recipe: Recipe | None = None,
    ) -> None:
        self._connection = connection
        self._core = AdaptationCore(connection, info, labels, recipe)

    async def predict(
        self,
        inputs: Inputs,
        *,
        rate: int | None = None,
        return_logits: bool = False,
        coverage: float | None = None,
        timeout: float | None = None,
    ) -> Predictions:
        """Answer queries, as `Adaptation.predict` does."""
        return await self._connection.run(
            self._core.predict_steps(inputs, rate, read_wanted(return_logits, coverage), timeout)
        )

    def predict_stream(
        self,
        queries: Iterable[Inputs] | AsyncIterable[Inputs],
        *,
        rate: int | None = None,
        return_logits: bool = False,
        coverage: float | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[Predictions]:
        """Answer many queries, as `Adaptation.predict_stream` does; `queries` is read by another task of the loop."""
        return AsyncPredictStream(
            self._connection, self._core, queries, rate, read_wanted(return_logits, coverage), timeout
        ).answers()

    async def suggest(
        self, inputs: Inputs, n: int, *, rate: int | None = None, timeout: float | None = None
    ) -> list[int]:
        """The places of `n` unlabelled inputs whose labels would help most, as `Adaptation.suggest` finds them."""
        return worth_labels((await self.predict(inputs, rate=rate, timeout=timeout)).probabilities, n)

    async def add(
        self,
        inputs: Inputs,
        labels: Iterable[Hashable] | None = None,
        *,
        targets: ArrayLike | None = None,
        rate: int | None = None,
        expected_revision: int | None = None,
        timeout: float | None = None,
    ) -> tuple[int, ...]:
        """Learn more examples, as `Adaptation.add` does."""
        steps = self._core.update_steps(Change(), expected_revision, timeout, inputs, labels, targets, rate)
        return await self._connection.run(steps)

    async def remove(
        self,
        examples: Iterable[int] = (),
        *,
        classes: Iterable[Hashable] = (),
        expected_revision: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Forget examples and classes, as `Adaptation.remove` does."""
        change = read_removal(examples, classes)
        await self._connection.run(self._core.update_steps(change, expected_revision, timeout))

    async def relabel(
        self,
        examples: Iterable[int] = (),
        labels: Iterable[Hashable] | None = None,
        *,
        targets: ArrayLike | None = None,
        classes: Mapping[Any, Hashable] | None = None,
        expected_revision: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Give examples other answers, and classes other labels, as `Adaptation.relabel` does."""
        change = read_relabelling(examples, labels, targets, classes)
        await self._connection.run(self._core.update_steps(change, expected_revision, timeout))

    async def examples(self, *, timeout: float | None = None) -> list[Example]:
        """The examples that it has learned from, as `Adaptation.examples` gives them."""
        return await self._connection.run(self._core.examples_steps(timeout))

    async def diagnose(self, *, timeout: float | None = None) -> Diagnosis:
        """What the examples say about each other's labels, as `Adaptation.diagnose` finds it."""
        return await self._connection.run(self._core.diagnose_steps(timeout))

    async def update(
        self,
        inputs: Inputs | None = None,
        labels: Iterable[Hashable] | None = None,
        *,
        targets: ArrayLike | None = None,
        rate: int | None = None,
        remove: Iterable[int] = (),
        remove_classes: Iterable[Hashable] = (),
        relabel: Mapping[int, Any] | None = None,
        rename: Mapping[Any, Hashable] | None = None,
        expected_revision: int | None = None,
        timeout: float | None = None,
    ) -> tuple[int, ...]:
        """Several changes as one revision, as `Adaptation.update` makes them."""
        change = read_changes(remove, remove_classes, relabel, rename, regresses=self._core.regresses)
        return await self._connection.run(
            self._core.update_steps(change, expected_revision, timeout, inputs, labels, targets, rate)
        )

    async def download(self, path: str | os.PathLike[str], *, timeout: float | None = None) -> None:
        """Take it home, as `Adaptation.download` does."""
        await self._connection.run(self._core.download_steps(path, timeout))

    async def delete(self, *, timeout: float | None = None) -> None:
        """Make the server forget it; does nothing when the server has already."""
        await self._connection.run(self._core.delete_steps(self._connection.deadline(timeout)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(InnerloopError) if error is not None else nullcontext():
            await self.delete()
