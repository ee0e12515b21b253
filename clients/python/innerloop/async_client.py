"""The asynchronous client, the twin of `Client`."""

from collections.abc import AsyncIterator, Hashable, Iterable
from datetime import timedelta
from types import TracebackType
from typing import Self, TypeVar

from numpy.typing import ArrayLike

from innerloop import calls, operations
from innerloop.adaptation import AsyncAdaptation
from innerloop.async_connection import AsyncConnection
from innerloop.bearer import TokenSource, make_bearer
from innerloop.calls import Call
from innerloop.channel import TLS
from innerloop.connection_core import ConnectionSettings
from innerloop.inputs import Inputs
from innerloop.models import Migration, Model
from innerloop.predictions import Predictions
from innerloop.priority import Priority
from innerloop.wanted import read_wanted

T = TypeVar("T")


class AsyncClient:
    """Talks to an Innerloop server from event loops; methods, arguments and errors are those of `Client`.

    It may be made anywhere, and used by several event loops, one after another or in threads: each gets a connection
    of its own.

    Example::

        async with AsyncClient("localhost:50051") as client:
            adaptation = await client.adapt("omniglot", support_images, support_labels)
            for p in await adaptation.predict(query_images):
                print(p.label, p.probability)
    """

    def __init__(
        self,
        target: str,
        *,
        tls: bool | TLS = False,
        api_key: str | None = None,
        token: TokenSource | None = None,
        insecure: bool = False,
        timeout: float = 30.0,
        retries: int = 4,
        readapt: bool = True,
        priority: Priority = "normal",
    ) -> None:
        """Prepare a connection, which is made when first used; arguments as those of `Client`.

        A function that returns tokens may be asynchronous; one that is not must not take long.
        """
        bearer = make_bearer(target, tls, api_key, token, insecure=insecure)
        self._connection = AsyncConnection(ConnectionSettings(target, tls, timeout, retries, priority, bearer))
        self._readapt = readapt

    async def adapt(
        self,
        model: str,
        inputs: Inputs,
        labels: Iterable[Hashable] | None = None,
        *,
        targets: ArrayLike | None = None,
        rate: int | None = None,
        steps: int | None = None,
        time_to_live: float | timedelta | None = None,
        forget_examples: bool = False,
        diagnose: bool = False,
        timeout: float | None = None,
    ) -> AsyncAdaptation:
        """Adapt a model to labelled examples; arguments as those of `Client.adapt`."""
        info, recipe = await self._connection.run(
            operations.adapt(
                self._connection,
                model,
                inputs,
                labels,
                targets,
                rate,
                steps,
                time_to_live,
                forget_examples,
                diagnose,
                timeout,
            )
        )
        return AsyncAdaptation(self._connection, info, recipe.labels, recipe if self._readapt else None)

    async def adapt_predict(
        self,
        model: str,
        inputs: Inputs,
        labels: Iterable[Hashable] | None = None,
        *,
        query: Inputs,
        targets: ArrayLike | None = None,
        rate: int | None = None,
        steps: int | None = None,
        return_logits: bool = False,
        coverage: float | None = None,
        timeout: float | None = None,
    ) -> Predictions:
        """Adapt and predict in one round trip; the server keeps nothing. Arguments as in `adapt` and `predict`.

        Queries that are too many for one request take several; the server then keeps the adaptation until the last one
        is answered.
        """
        return await self._connection.run(
            operations.adapt_predict(
                self._connection,
                model,
                inputs,
                labels,
                query,
                targets,
                rate,
                steps,
                read_wanted(return_logits, coverage),
                timeout,
            )
        )

    async def get_adaptation(self, adaptation_id: str, *, timeout: float | None = None) -> AsyncAdaptation:
        """An adaptation made before, perhaps by another process; its labels are strings, and it is not made again.

        Raises:
            AdaptationNotFoundError: there is none of this id.
        """
        info = await self._call(calls.get_adaptation(adaptation_id), timeout)
        return AsyncAdaptation(self._connection, info)

    async def list_adaptations(
        self, model: str | None = None, *, timeout: float | None = None
    ) -> AsyncIterator[AsyncAdaptation]:
        """The caller's own adaptations, newest first, fetched page by page; `timeout` is that of one page."""
        token = ""
        while True:
            page = await self._call(calls.list_adaptations(model, token), timeout)
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
        await self._call(calls.delete_adaptation(adaptation_id), timeout)

    async def models(self, *, timeout: float | None = None) -> list[Model]:
        """All models of the server, those that failed to load included."""
        return await self._call(calls.list_models(), timeout)

    async def model(self, name: str, *, timeout: float | None = None) -> Model:
        """One model.

        Raises:
            ModelNotFoundError: there is none of this name.
        """
        return await self._call(calls.get_model(name), timeout)

    async def load_model(self, name: str, *, timeout: float | None = None) -> Model:
        """Load what isn't loaded of a model, or NAME@VERSION, and read its aliases; needs admin scope. Not retried."""
        return await self._call(calls.load_model(name), timeout)

    async def unload_model(self, name: str, *, timeout: float | None = None) -> None:
        """Unload a model, or one version of it (NAME@VERSION); needs admin scope. Not retried."""
        await self._call(calls.unload_model(name), timeout)

    async def set_alias(
        self, model: str, alias: str, version: str | None, *, percent: float = 0.0, timeout: float | None = None
    ) -> Model:
        """Have an alias of a model point to a version; needs admin scope.

        Args:
            model: its name.
            alias: "stable", which the model's bare name stands for, "canary", or any other name.
            version: folder of the version, or the beginning of its digest; None takes the alias away.
            percent: share of callers who get "canary" when they ask for the bare name.
            timeout: seconds; the client's if None.
        """
        return await self._call(calls.set_alias(model, alias, version, percent), timeout)

    async def migrate(self, model: str, *, to: str | None = None, timeout: float | None = None) -> Migration:
        """Begin to make a model's adaptations again on another version, in the background; needs admin scope.

        Their ids stay. Calling it again while that is under way says how far it is.

        Args:
            model: its name.
            to: alias or folder of the version, or the beginning of its digest; "stable" if None.
            timeout: seconds; the client's if None.
        """
        return await self._call(calls.migrate(model, to), timeout)

    async def migration(self, model: str, *, timeout: float | None = None) -> Migration:
        """How far the latest migration of a model is; needs admin scope."""
        return await self._call(calls.get_migration(model), timeout)

    async def _call(self, call: Call[T], timeout: float | None) -> T:
        return await self._connection.run(self._connection.call(call, self._connection.deadline(timeout)))

    async def close(self) -> None:
        """Close the connection; calls under way fail."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
