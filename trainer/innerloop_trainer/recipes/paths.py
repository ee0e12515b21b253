"""Paths of a recipe, which are relative to the folder of its file until they are made absolute."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from innerloop_trainer.encoders import encoders
from innerloop_trainer.encoders.hugging_face import PREFIX
from innerloop_trainer.relative_paths import absolute_path, absolute_source


def with_absolute_paths(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Settings of a recipe whose paths no longer depend on a folder.

    Args:
        settings: settings by name, as in a recipe's file; values of other types than they should have stay.
        folder: folder that the paths are relative to.
    """
    return {name: _absolute(name, value, folder) for name, value in settings.items()}


def _absolute(name: str, value: Any, folder: Path) -> Any:
    if name == "teacher" and isinstance(value, list | tuple):
        return [_absolute("init", each, folder) for each in value]
    if not isinstance(value, str):
        return value
    if name == "data":
        return absolute_source(value, folder)
    if name == "encoder":
        return _absolute_encoder(value, folder)
    return absolute_path(value, folder) if name in ("init", "tokenizer") else value


def _absolute_encoder(text: str, folder: Path) -> str:
    """The text of an encoder; only that of a file or folder which is there changes."""
    head, mark, options = text.partition("?")
    prefix = PREFIX if head.startswith(PREFIX) else ""
    path = head.removeprefix(prefix)
    if head in encoders or not (folder / path).exists():
        return text
    return f"{prefix}{absolute_path(path, folder)}{mark}{options}"
