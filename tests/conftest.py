"""For all tests, and the processes that they start."""

import os
import sys

import pytest
from redis_server import redis_server

# Set before anything imports torch. Test workers and servers share the cores already; with a team of threads each,
# which spin while they wait for one another, the tests of the learner took fifty times as long on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Servers that tests start keep adaptations where they are told to, and never in the home of who runs the tests.
os.environ["INNERLOOP_STORE"] = "memory"


def pytest_collection_modifyitems(items):
    """Skip what needs a GPU where there is none; PyTorch is only asked if there is such a test."""
    need_gpu = [item for item in items if item.get_closest_marker("cuda")]
    if not need_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in need_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_runtest_teardown():
    """Take back the threads that a test let PyTorch have, or all tests after it would compete for cores."""
    torch, threads = sys.modules.get("torch"), int(os.environ["OMP_NUM_THREADS"])
    if torch is not None and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def redis(tmp_path_factory):
    """A Redis server that tests share; a test that needs it empty says so to it."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server
