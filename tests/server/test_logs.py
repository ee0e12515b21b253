"""What logs show, and what they don't."""

import subprocess
import sys

import pytest

FAILING = """
import logging, structlog
from innerloop_server.observability.logs import configure_logging

def fail(credential):
    raise LookupError("a fault of ours")

configure_logging("info", {form!r})
for log in (structlog.get_logger(), logging.getLogger("another package")):
    try:
        fail(chr(83) + "ECRET")
    except LookupError:
        log.exception("request failed")
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_shows_no_values_of_variables(form):
    program = [sys.executable, "-c", FAILING.format(form=form)]
    log = subprocess.run(program, check=True, capture_output=True, text=True).stderr
    assert "SECRET" not in log
    assert log.count("LookupError: a fault of ours") == 2
