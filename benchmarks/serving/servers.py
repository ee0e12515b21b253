"""The servers that a user would write today, each with the settings that suit it best."""

import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.request import urlopen

import numpy as np
from conv4 import WAYS
from load import Endpoint
from operation import Operation
from processes import Command
from task import Task

SCRIPTS = Path(__file__).parent / "peers"
START_SECONDS = 180.0
POLL_SECONDS = 0.2
MOST_WORKERS = 8
KEPT_BYTES = str(2**30)
ENVIRONMENT = {
    # Keeps freed memory as our server does, which makes these a tenth faster.
    "MALLOC_TRIM_THRESHOLD_": KEPT_BYTES,
    "MALLOC_MMAP_THRESHOLD_": KEPT_BYTES,
    "RAY_USAGE_STATS_ENABLED": "0",
    # Despite its name, this variable keeps Ray on loopback.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
BATCHES = {"cpu": (8, 16), "cuda": (16, 32)}


@dataclass(frozen=True)
class Peer:
    """A server that is not ours.

    Attributes:
        name: short.
        script: file in peers/.
        workers: processes that compute.
        threads: of each of them, inside PyTorch.
        thread_choices: numbers of threads to choose from by trying, if any.
        batch: most requests that a worker computes together.
        adapt: what adapts where requests are not batched.
        ports: how many it listens on.
        health: path that answers 200 once all workers are ready, where there is one.
    """

    name: str
    script: Literal["plain_grpc.py", "lit_serve.py", "ray_serve.py"]
    workers: int
    threads: int = 1
    thread_choices: tuple[int, ...] = ()
    batch: int = 1
    adapt: Literal["autograd", "higher"] = "autograd"
    ports: int = 1
    health: str = ""

    @contextmanager
    def serve(self, python: Path, weights: Path, device: str, tasks: list[Task]) -> Iterator[list[Operation]]:
        """Run the server until the block ends.

        Raises:
            RuntimeError: it ends, or does not answer in time; the message ends with what it printed.
        """
        ports = _free_ports(self.ports)
        with ExitStack() as stack:
            # Right below the folder for temporary files, because Ray's sockets lie there and may not have long paths.
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True))
            command = [str(python), str(SCRIPTS / self.script), "--ports", *map(str, ports)]
            for name in ("workers", "threads", "batch", "adapt"):
                command += [f"--{name}", str(getattr(self, name))]
            command += ["--device", device, "--weights", str(weights), "--folder", folder]
            server = stack.enter_context(Command(command, Path(folder) / "log", ENVIRONMENT))
            requests = [task.packed for task in tasks]
            endpoint = self._endpoint(ports)
            self._wait_until_ready(server, endpoint, requests[0])
            yield [Operation("AdaptPredict", endpoint, requests, _probabilities)]

    def _endpoint(self, ports: tuple[int, ...]) -> Endpoint:
        if self.script == "plain_grpc.py":
            return Endpoint("grpc", ports, "/FewShot/AdaptPredict")
        return Endpoint("http", ports, "/predict")

    def _wait_until_ready(self, server: Command, endpoint: Endpoint, request: bytes) -> None:
        """Until every port has answered a request."""
        give_up = time.monotonic() + START_SECONDS
        waiting = list(range(len(endpoint.ports)))
        while waiting:
            if not server.running:
                raise RuntimeError(f"the server ended:\n{server.log}")
            if time.monotonic() > give_up:
                raise RuntimeError(f"the server was not ready after {START_SECONDS:g} s:\n{server.log}")
            try:
                if self.health:
                    urlopen(f"http://127.0.0.1:{endpoint.ports[0]}{self.health}").close()
                endpoint.connect(waiting[0])(request)
            except Exception:
                time.sleep(POLL_SECONDS)
            else:
                waiting.pop(0)


def peers(device: str) -> list[Peer]:
    """All of them.

    Several workers have one thread each; one alone has as many threads as are best at the number of clients that it can
    compute together. Plain processes have a port each and clients are spread over them evenly, which is the best that
    SO_REUSEPORT can do: it leaves to chance which process gets a connection.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores, MOST_WORKERS)
    choices = tuple(sorted({max(cores // 2, 1), cores})) if device == "cpu" else ()
    plain = partial(Peer, script="plain_grpc.py")
    lit = partial(Peer, script="lit_serve.py", health="/health")
    ray = partial(Peer, script="ray_serve.py")
    batches = BATCHES[device]
    return [
        plain("gRPC, higher", workers=1, thread_choices=choices, adapt="higher"),
        plain("gRPC, autograd", workers=1, thread_choices=choices),
        plain(f"gRPC, autograd, {workers} processes", workers=workers, ports=workers),
        lit("LitServe", workers=1, thread_choices=choices),
        lit(f"LitServe, {workers} workers", workers=workers),
        *(lit(f"LitServe, vmap of {size}", workers=1, thread_choices=choices, batch=size) for size in batches),
        ray(f"Ray Serve, {workers} replicas", workers=workers),
        *(ray(f"Ray Serve, vmap of {size}", workers=1, thread_choices=choices, batch=size) for size in batches),
    ]


def _probabilities(answer: bytes) -> np.ndarray:
    return np.frombuffer(answer, "<f4").reshape(-1, WAYS)


def _free_ports(count: int) -> tuple[int, ...]:
    """Different ports on loopback that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return tuple(one.getsockname()[1] for one in sockets)
