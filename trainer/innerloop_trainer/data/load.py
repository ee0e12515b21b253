"""Loads the data source that a user's text names."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from innerloop_learner.encoders import EncoderSpec
from innerloop_learner.media import audio_extensions, readable_extensions
from innerloop_learner.registry import UnknownNameError
from innerloop_trainer.data.file_tree import open_tree
from innerloop_trainer.data.pack_index import is_pack
from innerloop_trainer.data.source import DataError, DataSource, SourceRequest, sources
from innerloop_trainer.data.tables import TABLES


def load_source(
    text: str,
    device: torch.device | str = "cpu",
    encoder: EncoderSpec | None = None,
    scratch: Path | None = None,
) -> DataSource:
    """Load the data source that `text` names, for example "omniglot:~/data/omniglot?split=alphabet".

    Args:
        text: `NAME`, `NAME:PATH` or either with `?key=value&key=value` behind it.
        device: device to keep the data on; the generators that episodes are drawn with must be on it too.
        encoder: encoder that the data is loaded for, and whose size the inputs get where the text names none.
        scratch: folder of temporary files for examples that need not fit in memory, as in `SourceRequest`.

    Raises:
        DataError: there is no such source or option, or the data can't be used; the message says what to do.

    >>> source = load_source("digits")
    >>> source.description
    '8 x 8 pixel handwritten digits: 0 to 5 for training, 6 and 7 for validation, 8 and 9 for test'
    >>> source.input.shape
    (1, 8, 8)
    """
    request = replace(parse_request(text, torch.device(device)), scratch=scratch)
    try:
        loader = sources[request.name]
    except UnknownNameError as error:
        raise DataError(f"{error}{_hint(text)}") from error
    if encoder is not None:
        request = replace(request, options={**loader.options_for(encoder), **request.options})
    return loader.load(request)


def _hint(text: str) -> str:
    """Source to write instead of a text that is only a path; empty where it is none."""
    path = Path(text.partition("?")[0]).expanduser()
    if not path.exists():
        return ""
    return f"; to read what lies at {path}, write {_name_for(path)}:{path}"


def _name_for(path: Path) -> str:
    """The source that is likely to read a file or folder, by the first file in it that tells."""
    kinds = {**dict.fromkeys(readable_extensions(), "images"), **dict.fromkeys(audio_extensions(), "audio")}
    kinds |= dict.fromkeys(TABLES, "texts")
    if is_pack(path):
        return "packed"
    with suppress(DataError, OSError):  # it is neither a folder nor an archive, or can't be read
        files = path.rglob("*") if path.is_dir() else [path] if path.suffix.lower() in kinds else open_tree(path).files
        return next((kinds[each.suffix.lower()] for each in files if each.suffix.lower() in kinds), "images")
    return "images"


def parse_request(text: str, device: torch.device) -> SourceRequest:
    """Split `NAME:PATH?key=value&...` into its parts.

    Raises:
        DataError: an option has not the form key=value.
    """
    head, options = split_options(text)
    name, _, path = head.partition(":")
    return SourceRequest(name=name, path=path, options=options, device=device)


def split_options(text: str) -> tuple[str, dict[str, str]]:
    """Split a text into the part before `?key=value&...`, and the options.

    Raises:
        DataError: an option has not the form key=value.
    """
    head, _, tail = text.partition("?")
    options = {}
    for pair in filter(None, tail.split("&")):
        key, separator, value = pair.partition("=")
        if not separator:
            raise DataError(f"{text}: write options as key=value, joined by &, not {pair!r}")
        options[key] = value
    return head, options
