"""Decodes images and sound to arrays, for trainer and server alike: a model is served what it learned on.

`formats` says which image files are read, `images` decodes them; `audio_formats` and `audio` do the same for
recordings. Nothing here needs PyTorch, and the libraries of sound are imported when the first recording is read.
"""

from innerloop_learner.media.audio import (
    MAX_AUDIO_SECONDS,
    AudioSupportError,
    UnreadableAudioError,
    count_samples,
    decode_audio,
    fit_audio,
    is_silent,
    require_audio,
)
from innerloop_learner.media.audio_formats import audio_extensions, audio_format_names
from innerloop_learner.media.formats import format_names, missing_extensions, readable_extensions
from innerloop_learner.media.images import MAX_PIXELS, Color, UnreadableImageError, decode_image, fit_image, open_image

__all__ = [
    "MAX_AUDIO_SECONDS",
    "MAX_PIXELS",
    "AudioSupportError",
    "Color",
    "UnreadableAudioError",
    "UnreadableImageError",
    "audio_extensions",
    "audio_format_names",
    "count_samples",
    "decode_audio",
    "decode_image",
    "fit_audio",
    "fit_image",
    "format_names",
    "is_silent",
    "missing_extensions",
    "open_image",
    "readable_extensions",
    "require_audio",
]
