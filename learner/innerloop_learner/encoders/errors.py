"""The error of encoders."""


class EncoderError(ValueError):
    """An encoder can't be used, or can't take its inputs; the message says why and what to do."""
