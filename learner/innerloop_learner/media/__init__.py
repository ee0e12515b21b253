"""Decodes image files to arrays, for trainer and server alike, so that a model is served the pixels that it learned on.

`formats` says which image files are read, `images` decodes them. Nothing here needs PyTorch.
"""

from innerloop_learner.media.formats import format_names, missing_extensions, readable_extensions
from innerloop_learner.media.images import MAX_PIXELS, Color, UnreadableImageError, decode_image, fit_image, open_image

__all__ = [
    "MAX_PIXELS",
    "Color",
    "UnreadableImageError",
    "decode_image",
    "fit_image",
    "format_names",
    "missing_extensions",
    "open_image",
    "readable_extensions",
]
