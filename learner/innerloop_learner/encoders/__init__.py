"""Frozen feature extractors in front of a learner: pre-trained networks as ONNX, for images, texts or audio.

A learner behind an encoder takes the encoder's features, float32 [F] or maps [C, H, W]; the encoder takes what clients
send. Nothing here needs PyTorch. ONNX Runtime and tokenizers are imported when an encoder is opened, and not before.
"""

from innerloop_learner.encoders.encoder import FrozenEncoder
from innerloop_learner.encoders.errors import EncoderError
from innerloop_learner.encoders.open import describe_encoder, open_encoder
from innerloop_learner.encoders.packed_texts import MAX_TEXT_BYTES, cut_text, join_packed, pack_texts, unpack_texts
from innerloop_learner.encoders.spec import EncoderOptions, EncoderOrigin, EncoderSpec

__all__ = [
    "MAX_TEXT_BYTES",
    "EncoderError",
    "EncoderOptions",
    "EncoderOrigin",
    "EncoderSpec",
    "FrozenEncoder",
    "cut_text",
    "describe_encoder",
    "join_packed",
    "open_encoder",
    "pack_texts",
    "unpack_texts",
]
