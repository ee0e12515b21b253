"""Steps that both kinds of connections share: calls whose errors are explained, and facts about models."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from innerloop import calls
from innerloop.bearer import Bearer
from innerloop.calls import Call
from innerloop.channel import TLS, check_target, make_credentials
from innerloop.errors import InnerloopError, InvalidArgumentError, UnavailableError
from innerloop.examples import EncodedExamples, Examples, Names
from innerloop.inputs import Inputs, are_files, list_inputs, read_inputs, texts_to_examples
from innerloop.mistakes import CONNECTING_FAILED, mistake_in_connecting
from innerloop.models import Model
from innerloop.priority import Priority, check_priority, set_priority
from innerloop.recordings import check_rate, read_recordings
from innerloop.retry import Deadline, RetryPolicy, check_retries, check_seconds
from innerloop.splitting import is_small, split
from innerloop.steps import Steps

T = TypeVar("T")


@dataclass(frozen=True)
class ConnectionSettings:
    """Settings of a client that concern its calls; see `Client`, and for `bearer` `make_bearer`."""

    target: str
    tls: bool | TLS
    timeout: float
    retries: int
    priority: Priority = "normal"
    bearer: Bearer | None = None


class ConnectionCore(ABC):
    """The settings of a client, what it knows of models, and its steps.

    Attributes:
        renews: whether each call may carry a token of its own.

    The abstract methods are the operations of the steps: `Connection` implements them as plain functions,
    `AsyncConnection` as asynchronous functions.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self._target = check_target(settings.target)
        self._tls = settings.tls
        self._bearer = settings.bearer
        self.renews = settings.bearer is not None and settings.bearer.renews
        self.credentials = make_credentials(settings.tls)
        self._timeout = check_seconds(settings.timeout, "timeout")
        self.policy = RetryPolicy(check_retries(settings.retries))
        self.priority = check_priority(settings.priority)
        self._models: dict[str, Model] = {}

    @abstractmethod
    def send(self, call: Call[Any], deadline: Deadline) -> Any:
        """The response to a call, tried again as the policy says."""

    @abstractmethod
    def apart(self, work: Callable[[], Any]) -> Any:
        """The result of work that may take long enough to hold up an event loop."""

    @abstractmethod
    def acquire(self, lock: threading.Lock, deadline: Deadline) -> Any:
        """Take a lock."""

    def deadline(self, timeout: float | None) -> Deadline:
        """The deadline of a call that begins now, `timeout` seconds away or the client's default."""
        return Deadline(self._timeout if timeout is None else check_seconds(timeout, "timeout"))

    def next_deadline(self, deadline: Deadline, timeout: float | None) -> Deadline:
        """The deadline of a further request of a call that takes several.

        It is that of the call if the caller gave a `timeout`, and else the client's default from now on.
        """
        return self.deadline(None) if timeout is None else deadline

    def call(self, call: Call[T], deadline: Deadline) -> Steps[T]:
        """Carry out a call.

        Raises:
            InnerloopError: the last attempt failed.
        """
        set_priority(call.request, self.priority)
        try:
            response = yield partial(self.send, call, deadline)
        except InvalidArgumentError as error:
            self._models.clear()  # what the server takes may have changed since it was asked
            raise call.explained(error) from error.__cause__
        except UnavailableError as error:
            raise (yield from self._explained(error)) from error.__cause__
        return call.read(response)

    def read(
        self, model: str, inputs: Inputs, names: Names, deadline: Deadline, rate: int | None = None
    ) -> Steps[Examples]:
        """Read `inputs` to `model`, asking the server what the model takes if need be.

        Args:
            model: the model that the inputs are for.
            inputs: as the caller gave them.
            names: what they are called.
            deadline: for asking the server.
            rate: samples a second of inputs that are arrays of samples; None for other inputs.

        Raises:
            InvalidArgumentError: they can't be sent.
        """
        in_memory = isinstance(inputs, np.ndarray)  # anything else may have to be read from files or computed first
        listing = partial(list_inputs, inputs, names.role)
        items = listing() if in_memory else (yield partial(self.apart, listing))
        if rate is not None:
            recordings: Examples = yield partial(self.apart, partial(read_recordings, items, check_rate(rate), names))
            return recordings
        audio = False
        if are_files(items):
            kind = (yield from self._model(model, deadline)).input_kind
            if kind == "text":
                return texts_to_examples(items, names)
            audio = kind == "audio"
        reading = partial(read_inputs, items, names, "audio_files" if audio else "images")
        examples: Examples = reading() if in_memory else (yield partial(self.apart, reading))
        if examples.need_shape:
            return examples.arranged((yield from self._model(model, deadline)).input_shape)
        return examples

    def split(
        self, model: str, query: Examples, beside: Callable[[], int], deadline: Deadline
    ) -> Steps[list[EncodedExamples]]:
        """Split queries into parts that each fit into one request, as the server's limits say.

        Args:
            model: the model that the queries are for.
            query: the queries.
            beside: returns how many bytes a request may carry besides the queries, such as those of a support set.
            deadline: for asking the server for its limits, which a few small queries make unnecessary.
        """
        if is_small(query):
            return [query.encoded()]
        limits = (yield from self._model(model, deadline)).limits
        return [part.encoded() for part in split(query, limits, beside())]

    def check_size(self, model: str, support: Examples) -> None:
        """Refuse a support set that no request to the model has room for, if the server was asked what it takes.

        Raises:
            InvalidArgumentError: it is too large.
        """
        known = self._models.get(model)
        most = known.limits.max_request_bytes if known is not None else 0
        size = sum(support.sizes)
        if most and size > most:
            raise InvalidArgumentError(
                f"the support set takes {size / 2**20:,.0f} MiB, and a request to this server up to "
                f"{most / 2**20:,.0f} MiB; give fewer examples or smaller ones"
            )

    def _model(self, name: str, deadline: Deadline) -> Steps[Model]:
        if name not in self._models:
            self._models[name] = yield from self.call(calls.get_model(name), deadline)
        return self._models[name]

    def _explained(self, error: UnavailableError) -> Steps[InnerloopError]:
        """The same error, with the mistake in the client's settings that makes connecting fail, if there is one."""
        if not error.message.startswith(CONNECTING_FAILED):
            return error
        mistake = yield partial(self.apart, partial(mistake_in_connecting, self._target, self._tls))
        return error.because(mistake) if mistake else error
