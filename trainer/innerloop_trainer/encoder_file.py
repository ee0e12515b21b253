"""Reads an encoder that a user names (`--encoder MODEL.onnx?key=value&... --tokenizer FILE`) and encodes data by it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch

from innerloop_learner.encoders import EncoderOptions, EncoderSpec, FrozenEncoder, describe_encoder, open_encoder
from innerloop_learner.encoders.session import Computing
from innerloop_learner.encoders.spec import Pooling
from innerloop_trainer.config import ConfigError
from innerloop_trainer.data import DataSource, load_source
from innerloop_trainer.data.encoded import encoded
from innerloop_trainer.data.load import split_options
from innerloop_trainer.data.options import expand_home


@dataclass(frozen=True)
class EncoderFile:
    """The files of an encoder, and the options that a user gave with them.

    Attributes:
        graph: content of the ONNX file.
        tokenizer: content of the tokenizer's file, for an encoder of texts.
        options: options behind the file's name.
    """

    graph: bytes
    tokenizer: bytes | None
    options: EncoderOptions


def read_encoder_file(text: str | None, tokenizer: Path | None) -> EncoderFile | None:
    """Read the files of an encoder; None if none is named.

    Args:
        text: path of the ONNX file, and behind it options as in `EncoderSpec`: output, pooling and normalise,
            max_tokens for texts, mean, std and scale for images, and rate for audio.
        tokenizer: path of the tokenizer's file.

    Raises:
        ConfigError: a file can't be read, or an option is not known.
        DataError: an option is not of the form key=value.
    """
    if text is None:
        if tokenizer is not None:
            raise ConfigError("--tokenizer belongs to an encoder; name the encoder with --encoder")
        return None
    path, options = split_options(text)
    given = EncoderOptions(**{key: _value(key, value) for key, value in options.items()})
    return EncoderFile(_read(Path(path)), None if tokenizer is None else _read(tokenizer), given)


def load_encoded(data: str, device: torch.device, file: EncoderFile | None) -> DataSource:
    """Load a data source, and encode its examples if there is an encoder.

    Raises:
        DataError, EncoderError: the data or the encoder can't be used, or not together.
    """
    source = load_source(data, device)
    if file is None:
        return source
    options = replace(file.options, shape=source.input.shape)
    return encoded(source, describe_encoder(file.graph, file.tokenizer, options, _computing(device)))


def open_bundled(spec: EncoderSpec, files: Mapping[str, bytes], device: torch.device) -> FrozenEncoder:
    """Open the encoder of a bundle. Raises EncoderError if it can't be used."""
    return open_encoder(spec, files, _computing(device))


def _computing(device: torch.device) -> Computing:
    return Computing(torch.get_num_threads(), cuda=device.type == "cuda")


def _read(path: Path) -> bytes:
    path = expand_home(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"encoder: {path} can't be read ({error.strerror})") from error


def _numbers(value: str) -> tuple[float, ...]:
    return tuple(float(each) for each in value.split(","))


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in choices:
            raise ValueError(f"it is one of: {', '.join(choices)}")
        return value

    return read


_READERS: dict[str, Callable[[str], Any]] = {
    "output": str,
    "pooling": _one_of(*get_args(Pooling)),
    "normalise": lambda value: _one_of("true", "false")(value) == "true",
    "max_tokens": int,
    "mean": _numbers,
    "std": _numbers,
    "scale": float,
    "rate": int,
}


def _value(key: str, value: str) -> Any:
    if key not in _READERS:
        raise ConfigError(f"encoder: unknown option {key!r}; there are: {', '.join(_READERS)}")
    try:
        return _READERS[key](value)
    except ValueError as error:
        raise ConfigError(f"encoder: {key}={value} is not understood ({error})") from error
