"""Reads the encoder that a user names: one of the catalogue, a file of their own, or one on Hugging Face."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from innerloop_learner.encoders import EncoderOptions, EncoderOrigin
from innerloop_learner.encoders.spec import Pooling
from innerloop_trainer.config import ConfigError
from innerloop_trainer.data.audio import MOST_SECONDS
from innerloop_trainer.data.load import split_options
from innerloop_trainer.data.options import expand_home
from innerloop_trainer.encoders.files import EncoderFiles
from innerloop_trainer.encoders.hugging_face import PREFIX, read_repository
from innerloop_trainer.encoders.pretrained import encoders

MOST_PIXELS = 2048
"""Largest height and width that an encoder of the catalogue is asked to read, in pixels."""


def read_optional_encoder(text: str | None, tokenizer: Path | None) -> EncoderFiles | None:
    """As `read_encoder`; None if no encoder is named.

    Raises:
        ConfigError: as there, or there is a tokenizer without an encoder.
        DataError: as there.
    """
    if text is not None:
        return read_encoder(text, tokenizer)
    if tokenizer is not None:
        raise ConfigError("--tokenizer belongs to an encoder; name the encoder with --encoder")
    return None


def read_encoder(text: str, tokenizer: Path | None = None) -> EncoderFiles:
    """Read the encoder that a text names.

    Args:
        text: name in the catalogue, path of an ONNX file, or `hf:OWNER/REPO`. Options may follow as `?key=value&...`:
            output, pooling and normalise as in `EncoderSpec`; max_tokens for texts; mean, std, scale and flip for
            images; rate for audio; of the catalogue's encoders, `size` in pixels for images and `seconds` for audio.
        tokenizer: path of the tokenizer's file, for an ONNX file of texts.

    Raises:
        ConfigError: the encoder is not known, not at hand or can't be read, or an option is not known.
        DataError: an option is not of the form key=value.
    """
    head, written = split_options(text)
    options = {key: _value(key, value) for key, value in written.items()}
    if head in encoders:
        if tokenizer is not None:
            raise ConfigError(f"{head} has a tokenizer of its own, or needs none; leave --tokenizer out")
        return _with(_catalogued(head, options), options)
    for key in _SIZES:
        if key in options:
            raise ConfigError(f"encoder: {key} is for encoders of the catalogue; say it of the data instead")
    files = read_repository(head) if head.startswith(PREFIX) else _file(head)
    if tokenizer is not None:
        files = replace(files, tokenizer=_read(tokenizer))
    return _with(files, options)


def _catalogued(name: str, options: dict[str, Any]) -> EncoderFiles:
    encoder = encoders[name]()
    files = encoder.read()
    for key in _SIZES:
        if key in options:
            files = encoder.sized(files, key, options.pop(key))
    return files


def _file(text: str) -> EncoderFiles:
    path = Path(text)
    if not path.suffix and len(path.parts) == 1 and not path.exists():
        raise ConfigError(
            f"encoder: there is no encoder {text!r} in the catalogue, and no file of this name; there are: "
            f"{', '.join(encoders)}"
        )
    return EncoderFiles(_read(path), None, EncoderOptions(), EncoderOrigin(path.stem))


def _with(files: EncoderFiles, options: Mapping[str, Any]) -> EncoderFiles:
    return replace(files, options=replace(files.options, **options))


def _read(path: Path) -> bytes:
    path = expand_home(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"encoder: {path} can't be read ({error.strerror})") from error


def _numbers(value: str) -> tuple[float, ...]:
    return tuple(float(each) for each in value.split(","))


def _up_to(most: int, kind: Callable[[str], float]) -> Callable[[str], float]:
    def read(value: str) -> float:
        number = kind(value)
        if not 0 < number <= most:
            raise ValueError(f"it must be above zero, and at most {most:,}")
        return number

    return read


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in choices:
            raise ValueError(f"it is one of: {', '.join(choices)}")
        return value

    return read


_SIZES: Mapping[str, Callable[[str], Any]] = {
    "size": _up_to(MOST_PIXELS, int),
    "seconds": _up_to(MOST_SECONDS, float),
}

_READERS: Mapping[str, Callable[[str], Any]] = {
    "output": str,
    "pooling": _one_of(*get_args(Pooling)),
    "normalise": lambda value: _one_of("true", "false")(value) == "true",
    "max_tokens": int,
    "mean": _numbers,
    "std": _numbers,
    "scale": float,
    "flip": lambda value: _one_of("true", "false")(value) == "true",
    "rate": int,
    **_SIZES,
}


def _value(key: str, value: str) -> Any:
    if key not in _READERS:
        raise ConfigError(f"encoder: unknown option {key!r}; there are: {', '.join(_READERS)}")
    try:
        return _READERS[key](value)
    except ValueError as error:
        raise ConfigError(f"encoder: {key}={value} is not understood ({error})") from error
