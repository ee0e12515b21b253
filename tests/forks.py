"""Servers that start in a tenth of the time: forks of a process that has imported what they need.

Importing PyTorch and the server takes seconds of processor time, and tests start servers by the hundred. So a test
process has a zygote, which imports once, starts no thread, and forks. A fork takes over arguments, environment, folder
and log, runs `python -m innerloop_server`, and ends with its code: its workers, front ends and ports are real ones.
What tests the start itself takes `ServerProcess` of `innerloop_command.server_process`, as users do.
"""

import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path

from innerloop_command import server_process

IMPORTED = ("innerloop_server.server", "innerloop_server.engine.pytorch.engine", "innerloop_learner.methods")
READ_WHEN_IMPORTED = {"GRPC_VERBOSITY": "NONE", "GRPC_ENABLE_FORK_SUPPORT": "false", "GOMP_SPINCOUNT": "10000"}
"""What `innerloop serve` sets before it imports libraries that read it."""

IMPORT_PATH = os.environ.get("PYTHONPATH")


class ServerProcess(server_process.ServerProcess):
    """`innerloop serve`, forked unless it has an interpreter or a path of modules of its own."""

    def _start(self, command, environment, log):
        python, _, module, *arguments = command
        if python != sys.executable or environment.get("PYTHONPATH") != IMPORT_PATH:
            return super()._start(command, environment, log)
        ours, its = socket.socketpair()
        with its:
            given = json.dumps([module, arguments, environment, str(Path.cwd())]).encode()
            socket.send_fds(zygote()[0], [given], [its.fileno(), log.fileno()])
        return ForkedProcess(ours)


class ForkedProcess:
    """What tests use of `subprocess.Popen`. The parent of the process is not this one, and tells how it ended."""

    def __init__(self, connection):
        self._connection = connection
        self.returncode = None
        self.pid = self._told()

    def poll(self):
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout=None):
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                self.returncode = self._told()
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout) from None
            self._connection.close()
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it may have ended since
                os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def _told(self):
        told = self._connection.recv(4)
        assert told, "the parent of a forked process has ended"
        return int.from_bytes(told, sys.byteorder, signed=True)


@cache
def zygote():
    """A connection to the zygote of this process, which ends when that is closed; and the zygote."""
    ours, its = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with its:
        process = subprocess.Popen(
            [sys.executable, __file__, str(its.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[its.fileno()],
            env={**os.environ, **READ_WHEN_IMPORTED},
            process_group=0,  # a Ctrl-C in the terminal is for the tests, which stop their servers
        )
    return ours, process


def fork_when_asked(control):
    """The life of a zygote."""
    for name in IMPORTED:
        import_module(name)
    gc.freeze()  # collections in forks would copy all that they share
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while given := (received := socket.recv_fds(control, 2**20, 2))[0]:
        descriptors = received[1]
        assert len(list(Path("/proc/self/task").iterdir())) == 1, "a fork has only the thread that forks"
        if os.fork() == 0:
            control.close()
            watch(socket.socket(fileno=descriptors[0]), descriptors[1], *json.loads(given))
            return
        for descriptor in descriptors:
            os.close(descriptor)


def watch(connection, log, *given):
    """Fork the server, and tell its process id and how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        connection.close()
        become(log, *given)
        return
    os.close(log)
    connection.send(pid.to_bytes(4, sys.byteorder))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    connection.send(code.to_bytes(4, sys.byteorder, signed=True))
    os._exit(0)


def become(log, module, arguments, environment, folder):
    """Do what `python -m MODULE ARGUMENTS` does in an environment and a folder."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(log)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    fork_when_asked(socket.socket(fileno=int(sys.argv[1])))
