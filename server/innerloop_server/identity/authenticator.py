"""Who callers are that send a credential with each call."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from innerloop_server.domain.callers import Caller
from innerloop_server.domain.errors import UnauthenticatedError
from innerloop_server.identity.api_keys import PREFIX, ApiKeys
from innerloop_server.identity.invalid_credential import InvalidCredentialError
from innerloop_server.identity.tokens import Tokens

LOOK_SECONDS = 0.5
"""Seconds between two looks at the files of keys. A change counts after two, or three if it comes between them."""


class Authenticator:
    """Names callers by API keys and tokens, whose files it follows from `start` to `stop`.

    Args:
        api_keys: None where the server knows none.
        tokens: None where it takes none.
    """

    def __init__(self, api_keys: ApiKeys | None, tokens: Tokens | None) -> None:
        self._api_keys = api_keys
        self._tokens = tokens
        self._looks: list[Callable[[], Awaitable[None]]] = []
        if api_keys is not None:
            self._looks.append(partial(asyncio.to_thread, api_keys.look))
        if tokens is not None:
            self._looks.append(tokens.look)
        self._following: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Be ready to name callers, and follow changes of keys from now on."""
        for look in self._looks:
            await look()
        # Apart: a URL that is slow must not keep API keys from being revoked.
        self._following = [asyncio.create_task(_follow(look)) for look in self._looks]

    def stop(self) -> None:
        """Follow no more changes."""
        for following in self._following:
            following.cancel()

    async def caller(self, credential: str) -> Caller:
        """The caller whom a credential stands for.

        Raises:
            UnauthenticatedError: it stands for nobody; why is for the log alone.
        """
        try:
            return await self._find(credential)
        except InvalidCredentialError as error:
            structlog.get_logger().info("a credential was refused", reason=str(error))
            raise UnauthenticatedError from None

    async def knows(self, credential: str) -> bool:
        """Whether a credential stands for anybody."""
        try:
            return await self._find(credential) is not None
        except InvalidCredentialError:
            return False

    async def _find(self, credential: str) -> Caller:
        if credential.startswith(PREFIX) and self._api_keys is not None:
            return self._api_keys.caller(credential)
        if self._tokens is not None:
            return await self._tokens.caller(credential)
        raise InvalidCredentialError("it is no API key")


async def _follow(look: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            await look()
        except Exception:  # what is wrong with one look must not end all later ones
            structlog.get_logger().exception("keys were not looked at")
