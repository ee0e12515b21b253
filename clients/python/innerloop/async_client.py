"""The asynchronous client, the twin of `Client`."""

from collections.abc import AsyncIterator, Hashable, Iterable
from datetime import timedelta
from types import TracebackType
from typing import Self

from numpy.typing import ArrayLike

from innerloop import calls
from innerloop.adaptation import AsyncAdaptation
from innerloop.async_connection import AsyncConnection
from innerloop.channel import TLS
from innerloop.examples import Names
from innerloop.inputs import Inputs
from innerloop.models import Model
from innerloop.predictions import Predictions
from innerloop.recipe import make_recipe, read_answers


class AsyncClient:
    """Talks to an Innerloop server from one event loop; methods, arguments and errors are those of `Client`.

    Example:
        >>> async with AsyncClient("localhost:50051") as client:
        ...     adaptation = await client.adapt("omniglot", support_images, support_labels)
        ...     for p in await adaptation.predict(query_images):
        ...         print(p.label, p.probability)
    """

    def __init__(
        self,
        target: str,
        *,
        tls: bool | TLS = False,
        timeout: float = 30.0,
        retries: int = 4,
        readapt: bool = True,
    ) -> None:
        """Prepare a connection, which is made when first used; arguments as those of `Client`."""
        self._connection = AsyncConnection(target, tls, timeout, retries)
        self._readapt = readapt

    async def adapt(
        self,
        model: str,
        inputs: Inputs,
        labels: Iterable[Hashable] | None = None,
        *,
        targets: ArrayLike | None = None,
        steps: int | None = None,
        time_to_live: float | timedelta | None = None,
        timeout: float | None = None,
    ) -> AsyncAdaptation:
        """Adapt a model to labelled examples; arguments as those of `Client.adapt`."""
        deadline = self._connection.deadline(timeout)
        answers = read_answers(labels, targets)
        examples = await self._connection.read(model, inputs, answers.names, deadline)
        recipe = make_recipe(model, examples, answers, steps, time_to_live)
        info = await self._connection.run(calls.adapt(recipe), deadline)
        return AsyncAdaptation(self._connection, info, recipe.labels, recipe if self._readapt else None)

    async def adapt_predict(
        self,
        model: str,
        inputs: Inputs,
        labels: Iterable[Hashable] | None = None,
        *,
        query: Inputs,
        targets: ArrayLike | None = None,
        steps: int | None = None,
        return_logits: bool = False,
        timeout: float | None = None,
    ) -> Predictions:
        """Adapt and predict in one round trip; the server keeps nothing. Arguments as in `adapt` and `predict`."""
        deadline = self._connection.deadline(timeout)
        answers = read_answers(labels, targets)
        examples = await self._connection.read(model, inputs, answers.names, deadline)
        recipe = make_recipe(model, examples, answers, steps, None)
        asked = (await self._connection.read(model, query, Names("query"), deadline)).to_message()
        return await self._connection.run(calls.adapt_predict(recipe, asked, return_logits=return_logits), deadline)

    async def get_adaptation(self, adaptation_id: str, *, timeout: float | None = None) -> AsyncAdaptation:
        """An adaptation made before, perhaps by another process; its labels are strings, and it is not made again.

        Raises:
            AdaptationNotFoundError: there is none of this id.
        """
        info = await self._connection.run(calls.get_adaptation(adaptation_id), self._connection.deadline(timeout))
        return AsyncAdaptation(self._connection, info)

    async def list_adaptations(
        self, model: str | None = None, *, timeout: float | None = None
    ) -> AsyncIterator[AsyncAdaptation]:
        """The caller's own adaptations, newest first, fetched page by page; `timeout` is that of one page."""
        token = ""
        while True:
            page = await self._connection.run(calls.list_adaptations(model, token), self._connection.deadline(timeout))
            for info in page.adaptations:
                yield AsyncAdaptation(self._connection, info)
            token = page.next_token
            if not token:
                return

    async def delete_adaptation(self, adaptation_id: str, *, timeout: float | None = None) -> None:
        """Make the server forget an adaptation.

        Raises:
            AdaptationNotFoundError: there is none of this id.
        """
        await self._connection.run(calls.delete_adaptation(adaptation_id), self._connection.deadline(timeout))

    async def models(self, *, timeout: float | None = None) -> list[Model]:
        """All models of the server, those that failed to load included."""
        return await self._connection.run(calls.list_models(), self._connection.deadline(timeout))

    async def model(self, name: str, *, timeout: float | None = None) -> Model:
        """One model.

        Raises:
            ModelNotFoundError: there is none of this name.
        """
        return await self._connection.run(calls.get_model(name), self._connection.deadline(timeout))

    async def load_model(self, name: str, *, timeout: float | None = None) -> Model:
        """Load a bundle of the server's model directory; needs admin scope. Not retried."""
        return await self._connection.run(calls.load_model(name), self._connection.deadline(timeout))

    async def unload_model(self, name: str, *, timeout: float | None = None) -> None:
        """Unload a model and drop its adaptations; needs admin scope. Not retried."""
        await self._connection.run(calls.unload_model(name), self._connection.deadline(timeout))

    async def close(self) -> None:
        """Close the connection; calls under way fail."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
