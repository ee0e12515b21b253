"""Signing options of the commands that write bundles."""

from pathlib import Path

from innerloop_learner.signatures import SignatureError, SigningKey, read_signature, read_signing_key

NOT_SIGNED_ANY_MORE = "the bundle that was replaced was signed, and the new one is not; `innerloop sign` signs it"


def read_sign_key(file: Path | None) -> SigningKey | None:
    """The key that `--sign-key` names.

    Raises:
        KeyFileError: the file holds no usable key.
    """
    return None if file is None else read_signing_key(file)


def is_signed(bundle: Path) -> bool:
    """Whether a bundle lies there that has a signature."""
    try:
        return read_signature(bundle) is not None
    except SignatureError:
        return False
