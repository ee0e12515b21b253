"""Runs a server as a process of its own and stops it again, for the demo, tests and benchmarks."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

START_SECONDS = 60.0
"""How long a server may take to load its models."""

STOP_SECONDS = 40.0
"""How long a server may take to answer what it has accepted, before it is killed."""

LOG, READY = "log", "ready.json"
POLL_SECONDS = 0.02


class ServerStartError(RuntimeError):
    """The server process ended, or did not get ready in time; the message ends with what it logged."""


class ServerProcess:
    """`innerloop serve` on free ports; a context manager that waits until the models are loaded.

    Args:
        models: model folder, or the URL of one.
        start_seconds: how long to wait for the models.
        python: the interpreter that runs the server; another one may have another version of Innerloop.
        settings: further settings by name, as in `ServerSettings`; a bool becomes a flag. Unless they name a store,
            adaptations are kept in memory.

    Attributes:
        port: of the gRPC services.
        metrics_port: of the Prometheus metrics.
        process: the running process.
    """

    def __init__(
        self, models: Path | str, *, start_seconds: float = START_SECONDS, python: str = sys.executable, **settings: Any
    ) -> None:
        self._models, self._python = models, python
        self._settings = {"port": 0, "metrics_port": 0, **settings}
        self._start_seconds = start_seconds
        self._folder: Path | None = None
        self._last_log = ""
        self.port = 0
        self.metrics_port = 0
        self.process: subprocess.Popen[bytes]

    @property
    def target(self) -> str:
        """The address that clients connect to."""
        return f"localhost:{self.port}"

    @property
    def metrics_url(self) -> str:
        """The address of the metrics for Prometheus."""
        return f"http://localhost:{self.metrics_port}/metrics"

    @property
    def log(self) -> str:
        """Everything the server has logged so far."""
        return (self._folder / LOG).read_text() if self._folder is not None else self._last_log

    def has_logged(self, event: str) -> bool:
        """Whether an event such as "ready" or "stopping" is in the log."""
        return f'"event": "{event}"' in self.log

    def launch(self) -> None:
        """Start the server without waiting for anything."""
        self._folder = Path(tempfile.mkdtemp(prefix="innerloop-server-"))
        command = [self._python, "-m", "innerloop_server", "serve", "--models", str(self._models)]
        command += [*_flags(self._settings), "--ready-file", str(self._folder / READY)]
        with (self._folder / LOG).open("wb") as log:
            # In the environment, where a version that knows no stores takes no notice of it.
            environment = {**os.environ, "INNERLOOP_STORE": "memory"}
            self.process = self._start(command, environment, log)

    def _start(self, command: list[str], environment: dict[str, str], log: BinaryIO) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        )

    def wait_until_ready(self) -> None:
        """Wait until the models are loaded.

        Raises:
            ServerStartError: the server ends before, or takes too long.
        """
        if self._folder is None:
            raise ServerStartError("the server was not launched")
        ready = self._folder / READY
        give_up = time.monotonic() + self._start_seconds
        while not ready.is_file():
            if self.process.poll() is not None:
                self._tidy_up()
                raise ServerStartError(f"the server ended with code {self.process.returncode}:\n{self.log}")
            if time.monotonic() > give_up:
                self.kill()
                raise ServerStartError(f"the server was not ready after {self._start_seconds:g} s:\n{self.log}")
            time.sleep(POLL_SECONDS)
        ports = json.loads(ready.read_text())
        self.port, self.metrics_port = ports["port"], ports["metrics_port"]

    def stop(self) -> int:
        """Ask the server to stop, wait until it has, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._tidy_up()
        return self.process.returncode

    def kill(self) -> None:
        """End the server without asking."""
        self.process.kill()
        self.process.wait()
        self._tidy_up()

    def _tidy_up(self) -> None:
        """Remove the files of a process that has ended; its log stays readable."""
        if self._folder is not None:
            self._last_log = self.log
            shutil.rmtree(self._folder)
            self._folder = None

    def __enter__(self) -> Self:
        self.launch()
        self.wait_until_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.stop()
        self._tidy_up()


def _flags(settings: dict[str, Any]) -> list[str]:
    flags = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            flags += [f"--{flag}", str(value)]
    return flags
