"""The files of an encoder and what is known of it, wherever they come from."""

import hashlib
from dataclasses import dataclass, replace

from innerloop_learner.encoders import EncoderOptions, EncoderOrigin, FrozenEncoder, describe_encoder
from innerloop_learner.encoders.session import Computing


@dataclass(frozen=True)
class EncoderFiles:
    """The files of an encoder, and what is known of it.

    Attributes:
        graph: content of the ONNX file.
        tokenizer: content of the tokenizer's file, for an encoder of texts.
        options: what its publisher says of its inputs and features, and what the user asked for. A shape in it is the
            one that data is brought to.
        origin: name, source and licence; None if nothing is known.
    """

    graph: bytes
    tokenizer: bytes | None
    options: EncoderOptions
    origin: EncoderOrigin | None = None


def open_files(files: EncoderFiles, computing: Computing, shape: tuple[int, ...] | None = None) -> FrozenEncoder:
    """Open an encoder from its files.

    Args:
        files: files and options of the encoder.
        computing: number of threads, and whether to use a GPU.
        shape: shape of the data, for an encoder that takes several and has no own one.

    Raises:
        EncoderError: the encoder can't be used, or the options do not fit it.
    """
    options = files.options if files.options.shape is not None else replace(files.options, shape=shape)
    origin = files.origin or EncoderOrigin()
    digest = hashlib.sha256(files.graph).hexdigest()
    return describe_encoder(files.graph, files.tokenizer, options, computing, replace(origin, digest=digest))
