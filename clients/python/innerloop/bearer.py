"""The credential that a client sends with every call: an API key or a token."""

import inspect
import re
from collections.abc import Awaitable, Callable

from innerloop.channel import TLS, check_target, is_this_machine
from innerloop.errors import InvalidArgumentError

TokenSource = str | Callable[[], str | Awaitable[str]]
"""A token, or a function that returns the one to send now; `AsyncClient` takes asynchronous functions too."""

_VISIBLE = re.compile(r"[!-~]+")

Metadata = tuple[tuple[str, str], ...]


class Bearer:
    """A credential whose bearer is served as its owner (RFC 6750). No error and no `repr` quotes it.

    Args:
        source: the credential, or what returns it before each call.
        name: what the caller calls it.

    Raises:
        InvalidArgumentError: it can't be sent.
    """

    def __init__(self, source: TokenSource, name: str) -> None:
        self._name = name
        self._source = source if callable(source) else self._metadata(source)

    @property
    def renews(self) -> bool:
        """Whether each call gets a credential of its own."""
        return callable(self._source)

    def metadata(self) -> Metadata:
        """Metadata that carry the credential of one call.

        Raises:
            InvalidArgumentError: the function returned something that can't be sent.
        """
        if not callable(self._source):
            return self._source
        credential = self._source()
        if inspect.iscoroutine(credential):
            credential.close()
            raise InvalidArgumentError(f"{self._name} is an asynchronous function, which only AsyncClient takes")
        return self._metadata(credential)

    async def metadata_async(self) -> Metadata:
        """The same, for event loops."""
        if not callable(self._source):
            return self._source
        credential = self._source()
        return self._metadata(await credential if inspect.isawaitable(credential) else credential)

    def _metadata(self, credential: object) -> Metadata:
        if not isinstance(credential, str):
            raise InvalidArgumentError(f"{self._name} is a {type(credential).__name__}, and a string is needed")
        if not _VISIBLE.fullmatch(credential):
            raise InvalidArgumentError(
                f"{self._name} is empty, or holds a space, a line break or another character that none has"
            )
        return (("authorization", f"Bearer {credential}"),)


def make_bearer(
    target: str, tls: bool | TLS, api_key: str | None, token: TokenSource | None, *, insecure: bool
) -> Bearer | None:
    """Make the credential of a client; None if it sends none.

    Args:
        target: of the client.
        tls: of the client.
        api_key: of the client.
        token: of the client.
        insecure: whether it may be sent in the clear to another machine.

    Raises:
        InvalidArgumentError: there are two of them, it can't be sent, or others could read it on its way.
    """
    check_target(target)
    if api_key is not None and token is not None:
        raise InvalidArgumentError("api_key and token: give one of them")
    source, name = (token, "token") if api_key is None else (api_key, "api_key")
    if source is None:
        return None
    if not (tls or insecure or is_this_machine(target)):
        raise InvalidArgumentError(
            f"{name}: others could read it on its way to {target}; set tls=True (--tls in the shell), or insecure=True"
        )
    return Bearer(source, name)
