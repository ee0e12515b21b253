"""What is wrong with a credential, for the log alone."""


class InvalidCredentialError(Exception):
    """A credential that stands for nobody; the message says why, and never quotes it."""
