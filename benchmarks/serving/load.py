"""A closed loop of clients over any transport: each sends its next request when it has the answer to its last one."""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from multiprocessing import active_children, get_context
from threading import Thread
from typing import Any, Literal

import grpc
import numpy as np

PROCESSES = 4
TIMEOUT_SECONDS = 60.0
PAUSE_AFTER_ERROR_SECONDS = 0.1
LEAD_SECONDS = 0.3
"""Seconds before the clients begin, in which connections and threads are made."""

Call = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Endpoint:
    """Where requests go, as bytes that are ready to send: no client library's work is measured.

    Attributes:
        transport: gRPC or HTTP/1.1 on kept connections, one for each client.
        ports: on 127.0.0.1; clients are spread over them evenly.
        path: full name of the gRPC method, or path to post to.
    """

    transport: Literal["grpc", "http"]
    ports: tuple[int, ...]
    path: str

    def connect(self, client: int) -> Call:
        """A connection of its own for one client; calling it raises an exception if there is no answer."""
        port = self.ports[client % len(self.ports)]
        return _grpc(port, self.path) if self.transport == "grpc" else _http(port, self.path)


def _grpc(port: int, method: str) -> Call:
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])
    call: Any = channel.unary_unary(method, request_serializer=None, response_deserializer=None)
    return lambda request: bytes(call(request, timeout=TIMEOUT_SECONDS))


def _http(port: int, path: str) -> Call:
    connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    headers = {"Content-Type": "application/octet-stream"}

    def call(request: bytes) -> bytes:
        try:
            connection.request("POST", path, request, headers)
            response = connection.getresponse()
            body = response.read()
        except BaseException:
            connection.close()  # the next request connects again
            raise
        if response.status != 200:
            raise RuntimeError(f"HTTP {response.status}: {body[:200]!r}")
        return body

    return call


@dataclass(frozen=True)
class Observed:
    """Answers that the clients of one process received between begin and end.

    Attributes:
        seconds: latency of each answer that came in this time.
        errors: what requests failed with.
        processor_seconds: what the process used of the processor in this time.
    """

    seconds: list[float]
    errors: list[str]
    processor_seconds: float


class ClosedLoop:
    """Clients in several processes, so that they are not what is measured; a context manager."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn"))

    def __enter__(self) -> "ClosedLoop":
        return self

    def __exit__(self, *_: object) -> None:
        # Clients that still run, because somebody interrupted them, would be waited for.
        for process in active_children():
            process.kill()
        self._pool.shutdown()

    def measure(
        self, endpoint: Endpoint, requests: list[bytes], clients: int, *, warm_up: float, seconds: float
    ) -> dict[str, Any]:
        """Answers per second and latencies at a number of clients, once they have run for `warm_up` seconds."""
        begin = time.monotonic() + LEAD_SECONDS + warm_up
        shares = [list(range(process, clients, PROCESSES)) for process in range(min(PROCESSES, clients))]
        # Every process is busy until the end, so that each takes one share.
        running = [self._pool.submit(observe, endpoint, requests, share, begin, begin + seconds) for share in shares]
        observed = [future.result() for future in running]
        latencies = 1e3 * np.array([value for one in observed for value in one.seconds])
        errors = [error for one in observed for error in one.errors]
        if not len(latencies):
            raise RuntimeError(f"no answers: {errors[0] if errors else 'none came in time'}")
        p50, p95, p99 = np.percentile(latencies, (50, 95, 99)).tolist()
        return {
            "per_second": len(latencies) / seconds,
            "p50_ms": p50,
            "p95_ms": p95,
            "p99_ms": p99,
            "errors": len(errors),
            "generator_cores": sum(one.processor_seconds for one in observed) / seconds,
        }


def observe(endpoint: Endpoint, requests: list[bytes], clients: list[int], begin: float, end: float) -> Observed:
    """Run clients as threads until `end` and tell what came since `begin`, both in time.monotonic()'s seconds."""
    answers: list[tuple[float, float]] = []
    errors: list[str] = []

    def run(client: int) -> None:
        call = endpoint.connect(client)
        turn = client
        while (sent := time.monotonic()) < end:
            try:
                call(requests[turn % len(requests)])
            except Exception as error:
                errors.append(f"{type(error).__name__}: {error}")
                time.sleep(PAUSE_AFTER_ERROR_SECONDS)
            else:
                answers.append((sent, time.monotonic()))
            turn += 1

    threads = [Thread(target=run, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    time.sleep(max(0.0, begin - time.monotonic()))
    used = time.process_time()
    time.sleep(max(0.0, end - time.monotonic()))
    used = time.process_time() - used
    for thread in threads:
        thread.join()
    seconds = [received - sent for sent, received in answers if begin <= received < end]
    return Observed(seconds, errors, used)
