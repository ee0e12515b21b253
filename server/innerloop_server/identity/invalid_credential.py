"""The error of a credential that is refused, whose reason is for the log alone."""


class InvalidCredentialError(Exception):
    """A credential that stands for nobody; the message says why, and never quotes it."""
