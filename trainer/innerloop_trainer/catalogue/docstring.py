"""What a docstring tells a user: a sentence, its source, and an explanation with equations."""

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_SOURCE = re.compile(r" \(([^()]*\b(?:19|20)\d\d\b[^()]*)\)")
_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Examples?):$", re.MULTILINE)


@dataclass(frozen=True)
class Docstring:
    """The docstring of a registered class or function.

    Attributes:
        summary: its first paragraph, without the source.
        source: the paper that the first paragraph names in parentheses, with a year; empty if it names none.
        explanation: the paragraphs behind it, up to the first section such as "Args:"; equations are indented.
    """

    summary: str
    source: str
    explanation: Sequence[str]


def read_docstring(entry: Any) -> Docstring:
    """Read the docstring of a registered class or function, empty if it has none of its own.

    >>> from innerloop_learner.norms import norms
    >>> text = read_docstring(norms["layer"])
    >>> text.summary, text.source
    ('Normalises all channels of an example together.', 'Ba et al. 2016')
    """
    text = inspect.cleandoc(entry.__doc__ or "")
    first, *others = _SECTION.split(text)[0].strip().split("\n\n")
    first = first.replace("\n", " ")
    source = _SOURCE.search(first)
    return Docstring(_SOURCE.sub("", first), source[1] if source else "", tuple(others))
