"""The error of encoders."""


class EncoderError(ValueError):
    """An encoder can't be used, or can't take its inputs; the message says why and what to do.

    Args:
        message: says so.
        detail: what another library says of it, which may name code or files: for people at the machine only.

    Attributes:
        message: without the detail.
    """

    def __init__(self, message: str, detail: object = "") -> None:
        super().__init__(f"{message} ({detail})" if detail else message)
        self.message = message
