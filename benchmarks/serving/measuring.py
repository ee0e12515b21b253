"""Measures one server after the other."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from load import ClosedLoop
from numpy.typing import NDArray
from operation import Operation

SETTLE_SECONDS, WARM_UP_SECONDS = 5.0, 3.0
"""For each server with a client for every task, so that every worker is warm; and for each number of clients."""

TRY_SECONDS = 4.0

Serve = Callable[[], AbstractContextManager[list[Operation]]]
"""Runs a server; gives what it can be asked."""


@dataclass(frozen=True)
class Measuring:
    """How servers are measured.

    Attributes:
        loop: sends the requests.
        right: probabilities [Q, W] of each task.
        tolerance: largest difference from them.
        clients: numbers of clients.
        seconds: for each of them.
    """

    loop: ClosedLoop
    right: list[NDArray[Any]]
    tolerance: float
    clients: tuple[int, ...]
    seconds: float

    def measure(self, serve: Serve) -> dict[str, Any]:
        """Figures by operation and number of clients; under "failed", what went wrong."""
        figures: dict[str, Any] = {}
        try:
            with serve() as operations:
                for operation in operations:
                    difference = operation.largest_difference(self.right)
                    if not difference <= self.tolerance:
                        raise RuntimeError(f"{operation.name} is wrong: a probability differs by {difference:.1g}")
                    self._rate(operation, len(self.right), 0.0, SETTLE_SECONDS)
                    points = {
                        str(clients): self._rate(operation, clients, WARM_UP_SECONDS, self.seconds)
                        for clients in self.clients
                    }
                    figures[operation.name] = {"largest_difference": difference, "clients": points}
        except Exception as error:
            # One server that fails shall not cost the figures of the others.
            figures["failed"] = f"{type(error).__name__}: {error}"
        return figures

    def best(self, choices: dict[int, Serve], clients: int) -> int:
        """The choice that answers most requests per second at a number of clients."""
        rates = {choice: self._try(serve, clients) for choice, serve in choices.items()}
        return max(rates, key=lambda choice: rates[choice])

    def _try(self, serve: Serve, clients: int) -> float:
        try:
            with serve() as (operation,):
                rate: float = self._rate(operation, clients, WARM_UP_SECONDS, TRY_SECONDS)["per_second"]
        except Exception:
            return 0.0  # `measure` will tell why, of the choice that is left
        return rate

    def _rate(self, operation: Operation, clients: int, warm_up: float, seconds: float) -> dict[str, Any]:
        return self.loop.measure(operation.endpoint, operation.requests, clients, warm_up=warm_up, seconds=seconds)
