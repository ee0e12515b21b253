"""Every promise of docs/guarantees.md names tests that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROWS = re.findall(r"^\| (?!promise|---)(.*?) \| (.*?) \|$", (ROOT / "docs" / "guarantees.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize(("promise", "tests"), ROWS, ids=lambda text: text[:60])
def test_a_promise_is_held_up_by_tests_that_exist(promise, tests):
    named = re.findall(r"`(tests/[\w/]+\.py):(\w+)`", tests)
    assert named, promise
    for path, name in named:
        functions = {node.name for node in ast.walk(ast.parse((ROOT / path).read_text())) if hasattr(node, "name")}
        assert name in functions, f"{path} has no {name}"


def test_there_are_promises():
    assert ROWS
