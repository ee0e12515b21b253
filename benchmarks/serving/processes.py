"""Runs a server that is not ours as a process, and ends it with everything that it started."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import Self

import psutil

STOP_SECONDS = 20.0
LOG_TAIL = 2000


class Command:
    """A command that runs in the background; a context manager.

    Args:
        command: program and arguments.
        log: file for what it prints.
        environment: variables besides those of this process.
    """

    def __init__(self, command: list[str], log: Path, environment: dict[str, str]) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = psutil.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """The end of what it printed."""
        return self._log.read_text(errors="replace")[-LOG_TAIL:]

    def stop(self) -> None:
        """Ask it to end; then kill whatever is left of it and of the processes that it started."""
        started = []
        with contextlib.suppress(psutil.NoSuchProcess):
            started = self._process.children(recursive=True)
            self._process.terminate()
        with contextlib.suppress(psutil.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        # Those of its session and those that went to sessions of their own, as Ray's do.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
