"""A real object store on a free port: moto's server, which speaks S3."""

import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec

import pytest

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "very-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}
NEEDED = ("moto", "flask", "flask_cors", "s3fs")


@contextmanager
def object_store():
    """A store with an empty bucket `models`; sets the environment in which clients and servers find it."""
    if missing := [name for name in NEEDED if not find_spec(name)]:
        pytest.skip(f"no object store: {', '.join(missing)} is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = FakeS3(port)
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": store.url}.items():
            environment.setenv(name, value)
        store.start()
        try:
            yield store
        finally:
            store.kill()


class FakeS3:
    """One process after another on one port; what it holds lives as long as the process."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}"
        self._port = port
        self._process = None

    def start(self):
        command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(self._port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        give_up = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
            except OSError:
                assert time.monotonic() < give_up, "the object store does not start"
                time.sleep(0.05)
            else:
                break
        self.system.mkdir("models")

    def kill(self):
        self._process.kill()
        self._process.wait()

    @cached_property
    def system(self):
        """A client, as fsspec makes it."""
        import s3fs

        return s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)

    def upload(self, folder, to):
        """Put all files below a folder to a place in the bucket."""
        for file in sorted(each for each in folder.rglob("*") if each.is_file()):
            self.system.pipe_file(f"models/{to}/{file.relative_to(folder)}", file.read_bytes())

    def delete(self, place):
        """Delete all below a place in the bucket."""
        self.system.rm(f"models/{place}", recursive=True)
