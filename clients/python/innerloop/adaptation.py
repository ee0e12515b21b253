"""Adapted models, ready for questions."""

import asyncio
import threading
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import Any, Self

from innerloop import calls
from innerloop.adaptation_info import NO_LABELS, AdaptationInfo
from innerloop.async_connection import AsyncConnection
from innerloop.async_predict_stream import AsyncPredictStream
from innerloop.calls import Call
from innerloop.connection import Connection
from innerloop.conversation import OneStream
from innerloop.errors import AdaptationNotFoundError, InnerloopError
from innerloop.examples import Names
from innerloop.inputs import Inputs
from innerloop.locks import acquired, acquired_async
from innerloop.predict_stream import PredictStream
from innerloop.predictions import Predictions
from innerloop.recipe import Recipe
from innerloop.retry import Deadline
from innerloop.v1 import tensor_pb2 as pb


class AdaptationHandle:
    """What `Adaptation` and `AsyncAdaptation` share: the description, the caller's labels, and how to make it again."""

    def __init__(self, info: AdaptationInfo, labels: Mapping[str, Any], recipe: Recipe | None) -> None:
        self._info = info
        self._labels = labels
        self._recipe = recipe

    @property
    def info(self) -> AdaptationInfo:
        """All that the server said; another description after the adaptation had to be made again."""
        return self._info

    @property
    def id(self) -> str:
        """Its present id."""
        return self._info.id

    @property
    def model(self) -> str:
        """The model it adapts."""
        return self._info.model

    @property
    def classes(self) -> tuple[Any, ...]:
        """The labels, in the order of every probability vector; empty for regression."""
        return self._info.classes

    @property
    def support_losses(self) -> tuple[float, ...]:
        """Mean support loss before each inner step; empty for methods without steps."""
        return self._info.support_losses

    def _question(self, asked: AdaptationInfo, query: pb.Inputs, return_logits: bool) -> Call[Predictions]:
        return calls.predict(asked.id, query, return_logits=return_logits, labels=self._labels)

    def _remake(
        self, gone: AdaptationNotFoundError, query: pb.Inputs, return_logits: bool
    ) -> Call[tuple[AdaptationInfo, Predictions]]:
        """The call that adapts again and asks, under a new request id: the old one would name what is gone."""
        if self._recipe is None:
            raise gone
        return calls.adapt_again(self._recipe, query, return_logits=return_logits)

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
        super().__init__(info, labels, recipe)
        self._connection = connection
        self._lock = threading.Lock()

    def predict(self, inputs: Inputs, *, return_logits: bool = False, timeout: float | None = None) -> Predictions:
        """Answer queries.

        Args:
            inputs: Q queries, in any form that `Client.adapt` takes.
            return_logits: whether to get the raw logits too.
            timeout: seconds; the client's default when None.

        Raises:
            AdaptationNotFoundError: the server has dropped it, and it was deleted here or can't be made again.
        """
        deadline = self._connection.deadline(timeout)
        return self._ask(self._encoded(inputs, deadline), return_logits, deadline)

    def predict_stream(
        self, queries: Iterable[Inputs], *, return_logits: bool = False, timeout: float | None = None
    ) -> Iterator[Predictions]:
        """Answer many queries, one by one and in their order: quicker than `predict` for each when they are small.

        They travel on one stream, which is opened again should it break. `queries` may go on for ever: it is read in
        another thread, at most 32 queries ahead of the answers, and each answer is given as soon as it and those
        before it are there. Nothing is sent before the first answer is asked for; leaving the loop ends the stream.

        Args:
            queries: each in any form that `predict` takes.
            return_logits: whether to get the raw logits too.
            timeout: seconds to wait for an answer; the client's default when None.

        Raises:
            What `predict` raises for the first query that fails, after the answers to those before it; and what
            reading `queries` raises.
        """
        stream = PredictStream(
            self._connection,
            (
                self._connection.read(
                    self.model, query, Names("query"), self._connection.deadline(timeout)
                ).to_message()
                for query in queries
            ),
            lambda conversation: OneStream(conversation, lambda: self.id, self._labels, return_logits),
            lambda query: self._ask(query, return_logits, self._connection.deadline(timeout)),
            self._connection.deadline(timeout).remaining(),
        )
        return stream.answers()

    def _encoded(self, query: Inputs, deadline: Deadline) -> pb.Inputs:
        return self._connection.read(self.model, query, Names("query"), deadline).to_message()

    def _ask(self, query: pb.Inputs, return_logits: bool, deadline: Deadline) -> Predictions:
        while True:
            asked = self._info
            try:
                return self._connection.run(self._question(asked, query, return_logits), deadline)
            except AdaptationNotFoundError as gone:
                with acquired(self._lock, deadline):
                    if self._info is asked:  # otherwise another thread was first: ask again
                        remake = self._remake(gone, query, return_logits)
                        self._info, predictions = self._connection.run(remake, deadline)
                        return predictions

    def delete(self, *, timeout: float | None = None) -> None:
        """Make the server forget it; does nothing when the server has already."""
        deadline = self._connection.deadline(timeout)
        with acquired(self._lock, deadline):
            self._recipe = None
            with suppress(AdaptationNotFoundError):
                self._connection.run(calls.delete_adaptation(self.id), deadline)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # What went wrong inside matters more than that the server can't be told to forget.
        with suppress(InnerloopError) if error is not None else nullcontext():
            self.delete()


class AsyncAdaptation(AdaptationHandle):
    """The twin of `Adaptation` for one event loop; as an asynchronous context manager, it is deleted at the end."""

    def __init__(
        self,
        connection: AsyncConnection,
        info: AdaptationInfo,
        labels: Mapping[str, Any] = NO_LABELS,
        recipe: Recipe | None = None,
    ) -> None:
        super().__init__(info, labels, recipe)
        self._connection = connection
        self._lock = asyncio.Lock()

    async def predict(
        self, inputs: Inputs, *, return_logits: bool = False, timeout: float | None = None
    ) -> Predictions:
        """Answer queries, as `Adaptation.predict` does."""
        deadline = self._connection.deadline(timeout)
        query = await self._connection.read(self.model, inputs, Names("query"), deadline)
        return await self._ask(query.to_message(), return_logits, deadline)

    def predict_stream(
        self,
        queries: Iterable[Inputs] | AsyncIterable[Inputs],
        *,
        return_logits: bool = False,
        timeout: float | None = None,
    ) -> AsyncIterator[Predictions]:
        """Answer many queries, as `Adaptation.predict_stream` does; `queries` is read by another task of the loop."""
        stream = AsyncPredictStream(
            self._connection,
            self._encoded(queries, timeout),
            lambda conversation: OneStream(conversation, lambda: self.id, self._labels, return_logits),
            lambda query: self._ask(query, return_logits, self._connection.deadline(timeout)),
            self._connection.deadline(timeout).remaining(),
        )
        return stream.answers()

    async def _encoded(
        self, queries: Iterable[Inputs] | AsyncIterable[Inputs], timeout: float | None
    ) -> AsyncIterator[pb.Inputs]:
        if isinstance(queries, AsyncIterable):
            async for query in queries:
                yield await self._encoded_one(query, timeout)
        else:
            for query in queries:
                yield await self._encoded_one(query, timeout)

    async def _encoded_one(self, query: Inputs, timeout: float | None) -> pb.Inputs:
        deadline = self._connection.deadline(timeout)
        return (await self._connection.read(self.model, query, Names("query"), deadline)).to_message()

    async def _ask(self, query: pb.Inputs, return_logits: bool, deadline: Deadline) -> Predictions:
        while True:
            asked = self._info
            try:
                return await self._connection.run(self._question(asked, query, return_logits), deadline)
            except AdaptationNotFoundError as gone:
                async with acquired_async(self._lock, deadline):
                    if self._info is asked:  # otherwise another task was first: ask again
                        remake = self._remake(gone, query, return_logits)
                        self._info, predictions = await self._connection.run(remake, deadline)
                        return predictions

    async def delete(self, *, timeout: float | None = None) -> None:
        """Make the server forget it; does nothing when the server has already."""
        deadline = self._connection.deadline(timeout)
        async with acquired_async(self._lock, deadline):
            self._recipe = None
            with suppress(AdaptationNotFoundError):
                await self._connection.run(calls.delete_adaptation(self.id), deadline)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(InnerloopError) if error is not None else nullcontext():
            await self.delete()
