"""Frozen encoders that models can be put behind: a catalogue of published ones, and one's own ONNX files.

Each encoder of the catalogue is a registered class that says where its weights come from, how they become an ONNX
graph, and how its inputs are prepared. `read_encoder` reads whatever a user names, `load_encoded` encodes data by it.
"""

from innerloop_trainer.encoders.efficientnet_lite import EfficientNetLite0, EfficientNetLite1, EfficientNetLite2
from innerloop_trainer.encoders.files import EncoderFiles, open_files
from innerloop_trainer.encoders.load import load_encoded, load_for_encoder, open_bundled
from innerloop_trainer.encoders.minilm import AllMiniLM
from innerloop_trainer.encoders.pretrained import EncoderCard, PretrainedEncoder, encoders
from innerloop_trainer.encoders.read import read_encoder, read_optional_encoder
from innerloop_trainer.encoders.speech_embedding import SpeechEmbedding

__all__ = [
    "AllMiniLM",
    "EfficientNetLite0",
    "EfficientNetLite1",
    "EfficientNetLite2",
    "EncoderCard",
    "EncoderFiles",
    "PretrainedEncoder",
    "SpeechEmbedding",
    "encoders",
    "load_encoded",
    "load_for_encoder",
    "open_bundled",
    "open_files",
    "read_encoder",
    "read_optional_encoder",
]
