"""What can be wrong with an encoder."""


class EncoderError(ValueError):
    """An encoder that can't be used, or inputs that it can't take; the message says why and what to do."""
