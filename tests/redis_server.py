"""A real Redis on a free port."""

import shutil
import socket
import subprocess
import time
from contextlib import contextmanager

import pytest

SERVERS = ("redis-server", "valkey-server")


@contextmanager
def redis_server(folder, *options):
    """A Redis or Valkey that writes everything to its disk before it answers; gives it, with its `url`."""
    program = next(filter(None, map(shutil.which, SERVERS)), None)
    if program is None:
        pytest.skip("no redis-server or valkey-server is installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = RedisServer(program, folder, port, options)
    server.start()
    try:
        yield server
    finally:
        server.kill()


class RedisServer:
    """One process after another, on one folder and port."""

    def __init__(self, program, folder, port, options):
        self.url = f"redis://127.0.0.1:{port}/0"
        self._port = port
        self._command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        self._command += ["--appendonly", "yes", "--appendfsync", "always", *options]
        self._process = None

    def start(self):
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        give_up = time.monotonic() + 20
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self._port), 1) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(5) == b"+PONG":
                        return
            except OSError:
                pass
            assert time.monotonic() < give_up, "Redis did not start"
            time.sleep(0.01)

    def kill(self):
        self._process.kill()
        self._process.wait()
