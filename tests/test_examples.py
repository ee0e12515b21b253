"""The examples in docstrings do what they say."""

import doctest
from importlib import import_module

import pytest
from imports import modules

EXAMPLES = [module for module, file in modules() if ">>> " in file.read_text()]


@pytest.mark.parametrize("module", EXAMPLES)
def test_the_examples_of_a_module_do_what_they_say(module):
    result = doctest.testmod(import_module(module), optionflags=doctest.ELLIPSIS)
    assert result.attempted
    assert not result.failed
