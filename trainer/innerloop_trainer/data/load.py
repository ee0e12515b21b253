"""From the text that a user types to a loaded data source."""

import torch

from innerloop_learner.registry import UnknownNameError
from innerloop_trainer.data.source import DataError, DataSource, SourceRequest, sources


def load_source(text: str, device: torch.device | str = "cpu") -> DataSource:
    """Load the data source that `text` names, for example "omniglot:~/data/omniglot?split=alphabet".

    Args:
        text: `NAME`, `NAME:PATH` or either with `?key=value&key=value` behind it.
        device: where the data shall reside; the generators that episodes are drawn with must be there too.

    Raises:
        DataError: no such source or option, or data that can't be used; the message says what to do.

    >>> source = load_source("digits")
    >>> source.description
    '8 x 8 pixel handwritten digits: 0 to 5 for training, 6 and 7 for validation, 8 and 9 for test'
    >>> source.input.shape
    (1, 8, 8)
    """
    request = parse_request(text, torch.device(device))
    try:
        loader = sources[request.name]
    except UnknownNameError as error:
        raise DataError(str(error)) from error
    return loader.load(request)


def parse_request(text: str, device: torch.device) -> SourceRequest:
    """Take `NAME:PATH?key=value&...` apart.

    Raises:
        DataError: an option is not of the form key=value.
    """
    head, options = split_options(text)
    name, _, path = head.partition(":")
    return SourceRequest(name=name, path=path, options=options, device=device)


def split_options(text: str) -> tuple[str, dict[str, str]]:
    """What stands before `?key=value&...`, and the options.

    Raises:
        DataError: an option is not of the form key=value.
    """
    head, _, tail = text.partition("?")
    options = {}
    for pair in filter(None, tail.split("&")):
        key, separator, value = pair.partition("=")
        if not separator:
            raise DataError(f"{text}: write options as key=value, joined by &, not {pair!r}")
        options[key] = value
    return head, options
