"""docs/architecture.md speaks of code that is there, and its example runs."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
HOMES = [
    ROOT / home
    for home in (
        ".",
        "server/innerloop_server",
        "learner/innerloop_learner",
        "trainer/innerloop_trainer",
        "clients/python/innerloop",
        "clients/python/innerloop_command",
    )
]
NAMED = sorted(set(re.findall(r"`([\w/]+\.py):([\w.]+)`", PAGE)))
FILES = sorted(set(re.findall(r"`((?:[\w]+/)*[\w]+\.py)`", PAGE)))


def found(path):
    """The files that a path of the page may mean."""
    return [home / path for home in HOMES if (home / path).is_file()]


def defined(tree, name):
    """Whether a module, or a class in it, defines a dotted name."""
    first, _, rest = name.partition(".")
    for node in tree.body:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        names = {getattr(node, "name", None), *(getattr(target, "id", None) for target in targets)}
        if first in names:
            return not rest or defined(node, rest)
    return False


def test_the_example_runs():
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(example, {})


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_named_functions_exist(path, name):
    assert any(defined(ast.parse(file.read_text()), name) for file in found(path))


def test_named_files_exist():
    assert NAMED
    assert [path for path in FILES if "NAME" not in path and not found(path)] == []
