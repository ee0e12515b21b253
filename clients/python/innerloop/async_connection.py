"""Carries out calls asynchronously: the twin of `Connection`."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
import numpy as np

from innerloop import calls
from innerloop.calls import Call, call_metadata
from innerloop.channel import TLS, open_async_channel
from innerloop.examples import Examples, Names
from innerloop.inputs import Inputs, are_strings, list_inputs, read_inputs, texts_to_examples
from innerloop.locks import acquired_async
from innerloop.models import Model
from innerloop.retry import Deadline, RetryPolicy
from innerloop.status import error_from
from innerloop.v1.adaptation_pb2_grpc import AdaptationServiceStub
from innerloop.v1.model_pb2_grpc import ModelServiceStub

T = TypeVar("T")


class AsyncConnection:
    """A channel to one server, for one event loop; arguments as those of `AsyncClient`."""

    def __init__(self, target: str, tls: bool | TLS, timeout: float, retries: int) -> None:
        self._target = target
        self._tls = tls
        self._timeout = timeout
        self.policy = RetryPolicy(retries)
        self._channel: grpc.aio.Channel | None = None
        self._methods: dict[str, Callable[..., Any]] = {}
        self._models: dict[str, Model] = {}
        self._models_lock = asyncio.Lock()

    def deadline(self, timeout: float | None) -> Deadline:
        """The deadline of a call that begins now, `timeout` seconds away or the client's default."""
        return Deadline(self._timeout if timeout is None else timeout)

    async def run(self, call: Call[T], deadline: Deadline) -> T:
        """Carry out a call.

        Raises:
            InnerloopError: the last attempt failed.
        """
        if self._channel is None:
            self._open()
        response: Any = await self.policy.async_retrying(deadline, safe=call.safe)(self._attempt, call, deadline)
        return call.read(response)

    def open_stream(self, request_id: str) -> Any:
        """A StreamPredict call, to be written to and read from."""
        if self._channel is None:
            self._open()
        return self._methods["StreamPredict"](metadata=call_metadata(request_id))

    async def read(self, model: str, inputs: Inputs, names: Names, deadline: Deadline) -> Examples:
        """Read `inputs` to `model`, asking the server what the model takes if need be.

        Raises:
            InvalidArgumentError: they can't be sent.
        """
        # Reading files and encoding images takes long enough to hold up an event loop.
        in_memory = isinstance(inputs, np.ndarray)
        items = (
            list_inputs(inputs, names.role) if in_memory else await asyncio.to_thread(list_inputs, inputs, names.role)
        )
        if are_strings(items) and (await self._model(model, deadline)).input_kind == "text":
            return texts_to_examples(items, names)
        examples = read_inputs(items, names) if in_memory else await asyncio.to_thread(read_inputs, items, names)
        return examples.arranged((await self._model(model, deadline)).input_shape) if examples.need_shape else examples

    async def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.close()

    def _open(self) -> None:
        """Open the channel; not before the first call, because it belongs to the event loop that runs then."""
        self._channel = open_async_channel(self._target, self._tls)
        self._methods = {**vars(AdaptationServiceStub(self._channel)), **vars(ModelServiceStub(self._channel))}

    async def _attempt(self, call: Call[Any], deadline: Deadline) -> Any:
        try:
            return await self._methods[call.method](call.request, timeout=deadline.remaining(), metadata=call.metadata)
        except grpc.RpcError as failure:
            raise error_from(failure, call.request_id) from failure

    async def _model(self, name: str, deadline: Deadline) -> Model:
        async with acquired_async(self._models_lock, deadline):
            if name not in self._models:
                self._models[name] = await self.run(calls.get_model(name), deadline)
            return self._models[name]
