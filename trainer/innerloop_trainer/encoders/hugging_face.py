"""Encoders in repositories of Hugging Face, or in local folders that are laid out like one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from innerloop_learner.encoders import EncoderOptions, EncoderOrigin
from innerloop_learner.encoders.spec import Pooling
from innerloop_trainer.config import ConfigError
from innerloop_trainer.data.options import expand_home
from innerloop_trainer.encoders.files import EncoderFiles

PREFIX = "hf:"
USUAL = ("onnx/model.onnx", "model.onnx")
"""Where repositories keep their graph, by the habit of Hugging Face's exporter."""
TOKENIZER, PREPROCESSOR, POOLING = "tokenizer.json", "preprocessor_config.json", "1_Pooling/config.json"
SIZES = ("height", "shortest_edge")
"""Names by which preprocessors say the height of images."""

Find = Callable[[str], Path | None]
"""Function from a file's path in a repository to the file on disk; None if the repository has no such file."""


def read_repository(text: str) -> EncoderFiles:
    """Read an encoder from a repository.

    Args:
        text: `hf:OWNER/REPO`, `hf:OWNER/REPO/path/of/file.onnx`, or `hf:FOLDER` with a local folder for the repository.

    Raises:
        ConfigError: the repository or its ONNX file can't be had; the message says why.
    """
    name = text.removeprefix(PREFIX)
    folder, file = _local(name)
    if folder is None:
        repository, file = _remote(name)
        find = _downloads(repository)
        source = f"{PREFIX}{repository}"
    else:
        repository, source = folder.name, ""

        def find(path: str) -> Path | None:
            return folder / path if (folder / path).is_file() else None

    candidates = (file,) if file else USUAL
    graph = next((found for found in map(find, candidates) if found is not None), None)
    if graph is None:
        raise ConfigError(
            f"encoder: {text} has no {' or '.join(candidates)}; name its ONNX file as {PREFIX}{name}/PATH.onnx"
        )
    tokenizer = find(TOKENIZER)
    options = _options(find, texts=tokenizer is not None)
    content = None if tokenizer is None else tokenizer.read_bytes()
    return EncoderFiles(graph.read_bytes(), content, options, EncoderOrigin(repository, source))


def _local(name: str) -> tuple[Path | None, str]:
    """The local folder that a text begins with, and the file inside of it; None if there is no such folder."""
    path = expand_home(Path(name))
    if path.is_dir():
        return path, ""
    if path.suffix == ".onnx":
        for folder in (path.parent.parent, path.parent):
            if path.is_file() and (folder / PREPROCESSOR).is_file() | (folder / TOKENIZER).is_file():
                return folder, str(path.relative_to(folder))
    return None, ""


def _remote(name: str) -> tuple[str, str]:
    owner, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    if not owner or not repository or owner.startswith((".", "~")):
        raise ConfigError(f"encoder: {PREFIX}{name} is neither OWNER/REPO nor a folder that exists")
    return f"{owner}/{repository}", file


def _downloads(repository: str) -> Find:
    """Files of a repository, downloaded into Hugging Face's cache, or taken from it where there is no connection."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )
    except ImportError as error:
        raise ConfigError('encoders of Hugging Face need huggingface_hub: pip install "innerloop[encoder]"') from error

    def find(path: str) -> Path | None:
        try:
            return Path(hf_hub_download(repository, path))
        except LocalEntryNotFoundError as error:
            raise ConfigError(
                f"encoder: {path} of {repository} is not on this machine, and Hugging Face can't be reached"
            ) from error
        except EntryNotFoundError:
            return None
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ConfigError(f"encoder: {repository} can't be had from Hugging Face ({reason})") from error

    return find


def _options(find: Find, *, texts: bool) -> EncoderOptions:
    if texts:
        return EncoderOptions(pooling=_pooling(_read(find(POOLING))))
    config = _read(find(PREPROCESSOR))
    if "sampling_rate" in config:
        return EncoderOptions(rate=int(config["sampling_rate"]))
    normalised = config.get("do_normalize", True) and "image_mean" in config
    height, width = _size(config.get("crop_size") if config.get("do_center_crop") else config.get("size"))
    return EncoderOptions(
        mean=tuple(map(float, config["image_mean"])) if normalised else None,
        std=tuple(map(float, config["image_std"])) if normalised else None,
        scale=float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0,
        shape=(3, height, width) if height else None,
    )


def _pooling(config: dict[str, Any]) -> Pooling | None:
    """How sentence-transformers pools, if the repository says so."""
    return "first" if config.get("pooling_mode_cls_token") else None


def _size(size: Any) -> tuple[int, int]:
    """Height and width of images; zeros if they are not known."""
    if isinstance(size, dict):
        height = next((size[name] for name in SIZES if name in size), 0)
        return int(height), int(size.get("width", height))
    return (int(size), int(size)) if isinstance(size, int) else (0, 0)


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"encoder: {file} can't be read; it should be JSON") from error
    return content if isinstance(content, dict) else {}
