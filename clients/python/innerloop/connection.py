"""Carries out calls synchronously: deadlines, retries, error mapping, and what models take, learned once."""

import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grpc

from innerloop import calls
from innerloop.calls import Call, call_metadata
from innerloop.channel import TLS, open_channel
from innerloop.examples import Examples, Names
from innerloop.inputs import Inputs, are_strings, list_inputs, read_inputs, texts_to_examples
from innerloop.locks import acquired
from innerloop.models import Model
from innerloop.retry import Deadline, RetryPolicy
from innerloop.status import error_from
from innerloop.v1.adaptation_pb2 import StreamPredictRequest
from innerloop.v1.adaptation_pb2_grpc import AdaptationServiceStub
from innerloop.v1.model_pb2_grpc import ModelServiceStub

T = TypeVar("T")


class Connection:
    """A channel to one server, for many threads; arguments as those of `Client`."""

    def __init__(self, target: str, tls: bool | TLS, timeout: float, retries: int) -> None:
        self._timeout = timeout
        self.policy = RetryPolicy(retries)
        self._channel = open_channel(target, tls)
        self._methods: dict[str, Callable[..., Any]] = {
            **vars(AdaptationServiceStub(self._channel)),
            **vars(ModelServiceStub(self._channel)),
        }
        self._models: dict[str, Model] = {}
        self._models_lock = threading.Lock()

    def deadline(self, timeout: float | None) -> Deadline:
        """The deadline of a call that begins now, `timeout` seconds away or the client's default."""
        return Deadline(self._timeout if timeout is None else timeout)

    def run(self, call: Call[T], deadline: Deadline) -> T:
        """Carry out a call.

        Raises:
            InnerloopError: the last attempt failed.
        """
        response = self.policy.retrying(deadline, safe=call.safe)(self._attempt, call, deadline)
        return call.read(response)

    def open_stream(self, requests: Iterator[StreamPredictRequest], request_id: str) -> Any:
        """A StreamPredict call that sends what `requests` gives, which is read in a thread of its own."""
        return self._methods["StreamPredict"](requests, metadata=call_metadata(request_id))

    def read(self, model: str, inputs: Inputs, names: Names, deadline: Deadline) -> Examples:
        """Read `inputs` to `model`, asking the server what the model takes if need be.

        Raises:
            InvalidArgumentError: they can't be sent.
        """
        items = list_inputs(inputs, names.role)
        if are_strings(items) and self._model(model, deadline).input_kind == "text":
            return texts_to_examples(items, names)
        examples = read_inputs(items, names)
        return examples.arranged(self._model(model, deadline).input_shape) if examples.need_shape else examples

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _attempt(self, call: Call[Any], deadline: Deadline) -> Any:
        try:
            return self._methods[call.method](call.request, timeout=deadline.remaining(), metadata=call.metadata)
        except grpc.RpcError as failure:
            raise error_from(failure, call.request_id) from failure

    def _model(self, name: str, deadline: Deadline) -> Model:
        with acquired(self._models_lock, deadline):
            if name not in self._models:
                self._models[name] = self.run(calls.get_model(name), deadline)
            return self._models[name]
