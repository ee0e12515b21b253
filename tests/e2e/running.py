"""Talking to a running server without the SDK."""

import json
import time
import urllib.request
from contextlib import contextmanager

import grpc
from prometheus_client.parser import text_string_to_metric_families

from innerloop.v1.adaptation_pb2_grpc import AdaptationServiceStub
from innerloop.v1.model_pb2_grpc import ModelServiceStub


class Connection:
    """Raw stubs on one channel."""

    def __init__(self, channel):
        self.channel = channel
        self.adaptations = AdaptationServiceStub(channel)
        self.models = ModelServiceStub(channel)


@contextmanager
def connect(server, credentials=None, options=()):
    options = [("grpc.enable_retries", 0), *options]
    if credentials is None:
        channel = grpc.insecure_channel(server.target, options)
    else:
        channel = grpc.secure_channel(server.target, credentials, options)
    with channel:
        yield Connection(channel)


class Metrics:
    """Values of a running server's metrics."""

    def __init__(self, url):
        self._url = url

    def __call__(self, name, **labels):
        """The sample of that name and labels; zero when there is none."""
        return next((sample.value for sample in self.samples(name) if sample.labels == labels), 0)

    def samples(self, name):
        with urllib.request.urlopen(self._url) as response:
            text = response.read().decode()
        return [
            sample
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        ]


def wait_until(condition, seconds=60):
    """Wait for something that will happen soon."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.01)


@contextmanager
def starting(server):
    """A launched server that listens but may still load its models."""
    server.launch()
    try:
        wait_until(lambda: server.has_logged("listening"))
        (line,) = [line for line in server.log.splitlines() if '"listening"' in line]
        server.port, server.metrics_port = json.loads(line)["port"], json.loads(line)["metrics_port"]
        yield
    finally:
        if server.process.poll() is None:
            server.stop()
