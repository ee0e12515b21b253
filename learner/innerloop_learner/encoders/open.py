"""Opens the files of an encoder, and checks that the encoder works."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from innerloop_learner.encoders.audio import AudioEncoder, takes_audio
from innerloop_learner.encoders.encoder import FrozenEncoder
from innerloop_learner.encoders.errors import EncoderError
from innerloop_learner.encoders.images import ImageEncoder, image_input
from innerloop_learner.encoders.session import Computing, Session
from innerloop_learner.encoders.spec import (
    ENCODER,
    TOKENIZER,
    EncoderOptions,
    EncoderOrigin,
    EncoderSpec,
    Form,
    Pooling,
)
from innerloop_learner.encoders.texts import TextEncoder, read_tokenizer, token_input

DEFAULT_MAX_TOKENS = 256
VECTORS: Mapping[Pooling, int] = {"mean-max": 2, "thirds": 3}
"""Number of vectors that a pooling puts one behind the other, where it is more than one."""

TOLERANCE = 1e-2
"""Largest change of features by the rest of the batch, as a share of their size; rounding changes them far less."""


def open_encoder(spec: EncoderSpec, files: Mapping[str, bytes], computing: Computing | None = None) -> FrozenEncoder:
    """Open the encoder that a spec describes, and try it on two inputs.

    Args:
        spec: description of the encoder.
        files: content of a bundle's files by name; encoder.onnx is used, and for texts tokenizer.json.
        computing: number of threads, and whether to use a GPU; None for all cores of the CPU.

    Raises:
        EncoderError: the encoder does not work as the spec says.
    """
    own = {name: files[name] for name in ((ENCODER, TOKENIZER) if spec.input == "texts" else (ENCODER,))}
    encoder = _opened(spec, own, Session(own[ENCODER], computing or Computing()))
    _try_out(encoder)
    return encoder


def describe_encoder(
    graph: bytes,
    tokenizer: bytes | None,
    options: EncoderOptions,
    computing: Computing | None = None,
    origin: EncoderOrigin | None = None,
) -> FrozenEncoder:
    """Open an encoder from its graph and the options that a user gave; missing options are found by trying the graph.

    Args:
        graph: content of the ONNX file.
        tokenizer: content of the tokenizer's file, for texts.
        options: options that the user gave.
        computing: number of threads, and whether to use a GPU; None for all cores of the CPU.
        origin: where the encoder comes from, to be recorded in its spec.

    Raises:
        EncoderError: the encoder can't be used, or the options do not fit it.
    """
    session = Session(graph, computing or Computing())
    form: Form = "texts" if tokenizer is not None else "audio" if takes_audio(session) else "images"
    _check_options(form, options)
    files = {ENCODER: graph} if tokenizer is None else {ENCODER: graph, TOKENIZER: tokenizer}
    output = options.output or session.outputs[0]
    if form == "texts":
        spec = _text_spec(session, output, options, files)
    else:
        spec = (_audio_spec if form == "audio" else _image_spec)(session, output, options)
    shape = _opened(spec, files, session).output_shape()
    encoder = _opened(replace(_with_output(spec, shape, options), origin=origin), files, session)
    _try_out(encoder)
    return encoder


def _opened(spec: EncoderSpec, files: Mapping[str, bytes], session: Session) -> FrozenEncoder:
    kinds: Mapping[Form, type[FrozenEncoder]] = {"texts": TextEncoder, "images": ImageEncoder, "audio": AudioEncoder}
    return kinds[spec.input](spec, session, files)


_OPTIONS_OF: Mapping[str, Form] = {
    "max_tokens": "texts",
    "mean": "images",
    "std": "images",
    "scale": "images",
    "flip": "images",
    "rate": "audio",
}
"""Options that belong to one kind of inputs."""


def _check_options(form: Form, options: EncoderOptions) -> None:
    for name, owner in _OPTIONS_OF.items():
        if getattr(options, name) is not None and form != owner:
            further = "; texts need --tokenizer" if owner == "texts" else ""
            raise EncoderError(f"{name} is for {owner}, and this encoder takes {form}; leave it out{further}")


def _text_spec(session: Session, output: str, options: EncoderOptions, files: Mapping[str, bytes]) -> EncoderSpec:
    if options.max_tokens is not None and options.max_tokens < 1:
        raise EncoderError(f"max_tokens must be at least 1, not {options.max_tokens}")
    _, length = token_input(session)
    truncation = read_tokenizer(files[TOKENIZER]).truncation
    own = int(truncation["max_length"]) if truncation else length or DEFAULT_MAX_TOKENS
    most = options.max_tokens or min(own, length or own)
    if length is not None and most > length:
        raise EncoderError(f"max_tokens={most} is more than the {length} that this encoder takes")
    return EncoderSpec("texts", 1, output, max_tokens=most)


def _image_spec(session: Session, output: str, options: EncoderOptions) -> EncoderSpec:
    (_, *sizes), dtype = image_input(session)
    named = [name for name in ("mean", "std", "scale") if getattr(options, name) is not None]
    if named and dtype == np.uint8:
        raise EncoderError(f"this encoder takes pixels as they are; leave {', '.join(named)} out")
    given = _shape_of_data(options, 3)
    if None in sizes and given is None:
        raise EncoderError("this encoder takes images of any size, and there are no images to say which")
    shape = tuple(size or other for size, other in zip(sizes, given or (0, 0, 0), strict=True))
    fields = {name: getattr(options, name) for name in named}
    try:
        return EncoderSpec("images", 1, output, shape=shape, flip=options.flip is True, **fields)
    except ValueError as error:
        raise EncoderError(str(error)) from error


def _audio_spec(session: Session, output: str, options: EncoderOptions) -> EncoderSpec:
    (((_, length), _),) = session.inputs.values()
    shape = _shape_of_data(options, 1) if length is None else (length,)
    if shape is None:
        raise EncoderError("this encoder takes audio of any length, and there is no audio to say which")
    if options.rate is None:
        raise EncoderError("this encoder takes audio; say at which sampling rate in Hz, for example ?rate=16000")
    try:
        return EncoderSpec("audio", 1, output, shape=shape, rate=options.rate)
    except ValueError as error:
        raise EncoderError(str(error)) from error


def _shape_of_data(options: EncoderOptions, sizes: int) -> tuple[int, ...] | None:
    return options.shape if options.shape is not None and len(options.shape) == sizes else None


def _with_output(spec: EncoderSpec, shape: tuple[int, ...], options: EncoderOptions) -> EncoderSpec:
    """Complete a spec, given the shape of the graph's output for one example [1, ...]."""
    maps = spec.input != "texts" and len(shape) == 4
    if len(shape) == 2:
        if options.pooling not in (None, "none"):
            raise EncoderError(f"the output {spec.output!r} is one vector for each example; leave pooling out")
        # Features of length 1 suit distances and learning rates; their length hardly ever tells classes apart.
        return replace(spec, features=shape[1], normalise=options.normalise is not False)
    if not maps and len(shape) != 3:
        raise EncoderError(f"the output {spec.output!r} is {list(shape)}, of which no features can be made")
    if options.pooling == "none":
        if not maps:
            raise EncoderError(
                f"the output {spec.output!r} is several vectors for each example; name a pooling, such as mean"
            )
        return replace(spec, features=math.prod(shape), feature_shape=shape[1:], normalise=options.normalise is True)
    channels = shape[1] if maps else shape[2]
    pooling = options.pooling or "mean"
    if pooling == "thirds" and (spec.input != "audio" or maps or shape[1] < 3):
        raise EncoderError("pooling=thirds takes three windows of audio or more, one after the other; take mean")
    return replace(
        spec,
        features=VECTORS.get(pooling, 1) * channels,
        pooling=pooling,
        normalise=options.normalise is not False,
    )


def _try_out(encoder: FrozenEncoder) -> None:
    """Check that features are finite, and that an example's features do not depend on the other examples."""
    probe = encoder.probe()
    together = encoder.encode(probe)
    alone = np.concatenate([encoder.encode(probe[:1]), encoder.encode(probe[1:])])
    if not np.isfinite(together).all():
        raise EncoderError("the encoder gives features that are not numbers")
    if np.abs(together - alone).max() > TOLERANCE * np.abs(alone).max():
        raise EncoderError(
            "what the encoder makes of an example depends on the others of its batch, so that answers would depend on "
            "other clients' inputs; export it in evaluation mode, with its attention mask"
        )
