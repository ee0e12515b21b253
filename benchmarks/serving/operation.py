"""One thing that a server is asked to do, as bytes there and back."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from load import Endpoint
from numpy.typing import NDArray


@dataclass(frozen=True)
class Operation:
    """Operation that clients measure.

    Attributes:
        name: AdaptPredict or Predict.
        endpoint: where to send requests.
        requests: one for each task, ready to send.
        read: turns an answer into probabilities [Q, W].
    """

    name: str
    endpoint: Endpoint
    requests: list[bytes]
    read: Callable[[bytes], NDArray[Any]]

    def largest_difference(self, right: list[NDArray[Any]]) -> float:
        """Largest difference of a probability from the right one, all tasks asked at once so that servers batch."""

        def ask(client: int) -> float:
            answer = self.read(self.endpoint.connect(client)(self.requests[client]))
            return float(np.abs(answer - right[client]).max())

        with ThreadPoolExecutor(len(self.requests)) as threads:
            return max(threads.map(ask, range(len(self.requests))))
