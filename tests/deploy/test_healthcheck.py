"""The containers' health check against real servers."""

import subprocess
import sys

import pytest
from forks import ServerProcess


def health(port, **environment):
    """Exit code of the health check."""
    command = [sys.executable, "-m", "innerloop_server.healthcheck"]
    return subprocess.run(command, env={"INNERLOOP_PORT": str(port), **environment}, check=False).returncode


def test_a_server_that_serves_is_healthy(server):
    assert health(server.port) == 0


def test_a_proxy_is_not_asked(server):
    assert health(server.port, http_proxy="http://localhost:9", https_proxy="http://localhost:9") == 0


def test_a_server_that_refused_all_its_models_is_not_healthy_and_neither_is_one_that_ended(tmp_path):
    (tmp_path / "broken").mkdir()
    with ServerProcess(tmp_path, threads=1, lanes=1) as server:
        assert health(server.port) == 1
    assert health(server.port) == 1


@pytest.mark.parametrize("module", ["torch", "innerloop_server.engine.pytorch.engine"])
def test_checking_costs_no_import_of_pytorch(module):
    code = f"import sys, innerloop_server.healthcheck; sys.exit({module!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
