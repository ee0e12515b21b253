"""How a server tells callers apart, as its settings say."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from innerloop_server.identity.api_keys import ApiKeys
from innerloop_server.identity.authenticator import Authenticator
from innerloop_server.identity.certificates import Certificates
from innerloop_server.identity.followed_file import UnusableFileError
from innerloop_server.identity.token_keys import FileKeys, UrlKeys
from innerloop_server.identity.tokens import Tokens
from innerloop_server.settings import ConfigurationError, ServerSettings


def make_certificates(settings: ServerSettings) -> Certificates | None:
    """What names the owners of client certificates; None where the server asks for none.

    Raises:
        ConfigurationError: the settings name admins by something that is no subject.
    """
    if settings.tls_client_ca is None:
        return None
    try:
        return Certificates(settings.subjects_of_admins)
    except ValueError as error:
        raise ConfigurationError("admin_subjects: is not like CN=ops,O=Example") from error


def make_authenticator(settings: ServerSettings) -> Authenticator | None:
    """What names callers by the credentials that they send; None where the server takes none.

    Raises:
        ConfigurationError: a file of keys can't be used.
    """
    if not settings.takes_credentials:
        return None
    api_keys = tokens = None
    if settings.api_keys is not None:
        with _naming("api_keys"):
            api_keys = ApiKeys(settings.api_keys)
    if settings.jwt_keys is not None:
        with _naming("jwt_keys"):
            keys = UrlKeys(settings.jwt_keys) if settings.jwt_keys_are_remote else FileKeys(Path(settings.jwt_keys))
        tokens = Tokens(keys, settings.jwt_issuer or "", settings.jwt_audience or "")
    return Authenticator(api_keys, tokens)


@contextmanager
def _naming(setting: str) -> Iterator[None]:
    """Say which setting names the file that can't be used."""
    try:
        yield
    except UnusableFileError as error:
        raise ConfigurationError(f"{setting}: {error}") from error
