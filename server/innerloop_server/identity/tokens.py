"""Owners by JSON Web Token (RFC 7519)."""

import json
import time
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

import jwt

from innerloop_server.domain.callers import Caller, Scope
from innerloop_server.identity.invalid_credential import InvalidCredentialError
from innerloop_server.identity.token_keys import TokenKey, TokenKeys

LEEWAY_SECONDS = 10.0
"""Seconds by which the clock of whoever issues tokens may differ from the server's."""

TOKENS = 4096
"""Tokens whose callers are remembered: checking a signature takes longer than looking a token up."""

_CLAIMS = ["exp", "sub", "iss", "aud"]


class _Verified(NamedTuple):
    caller: Caller
    expires: float  # seconds since 1970


class _NoKeyError(InvalidCredentialError):
    """A token that names a key that isn't there."""


class Tokens:
    """Names callers by their tokens.

    Args:
        keys: that check signatures.
        issuer: claim `iss` of every token.
        audience: that the claim `aud` of every token names.
    """

    def __init__(self, keys: TokenKeys, issuer: str, audience: str) -> None:
        self._keys = keys
        self._issuer, self._audience = issuer, audience
        self._known_for: Sequence[TokenKey] = ()
        self._verify = lru_cache(TOKENS)(self._decode)

    async def caller(self, token: str) -> Caller:
        """The caller whom a token stands for.

        Raises:
            InvalidCredentialError: it stands for nobody.
        """
        try:
            verified = self._verified(token)
        except _NoKeyError:
            if not await self._keys.seek():
                raise
            verified = self._verified(token)
        if verified.expires + LEEWAY_SECONDS <= time.time():
            raise InvalidCredentialError("the token has expired")
        return verified.caller

    async def look(self) -> None:
        """Bring the keys up to date if it is time."""
        await self._keys.look()

    def _verified(self, token: str) -> _Verified:
        if self._keys.keys is not self._known_for:
            self._verify.cache_clear()
            self._known_for = self._keys.keys
        return self._verify(token)

    def _decode(self, token: str) -> _Verified:
        try:
            claims = self._claims(token)
            if not claims["sub"]:
                raise InvalidCredentialError("the token is nobody's")
            words = claims.get("scope", "").split()
            owner = sha256(json.dumps([claims["iss"], claims["sub"]]).encode()).hexdigest()
            scopes = frozenset(scope for scope in Scope if scope in words)
            return _Verified(Caller(f"token:{owner}", scopes=scopes), float(claims["exp"]))
        except InvalidCredentialError:
            raise
        # Whoever sends a token chooses its bytes, and what fails on them is their fault whatever it is: JSON that is
        # nested too deep, for example, ends in a RecursionError. The message may quote them, the name does not.
        except Exception as error:
            raise InvalidCredentialError(f"the token is not valid: {type(error).__name__}") from None

    def _claims(self, token: str) -> dict[str, Any]:
        """The claims of a token, once one of the keys that it may be signed for has checked it."""
        header = jwt.get_unverified_header(token)
        named = header.get("kid")
        fitting = [key for key in self._known_for if key.id is None or named is None or key.id == named]
        if not fitting:
            raise _NoKeyError("the token names a key that is not there")
        for number, key in enumerate(fitting, 1):
            try:
                return jwt.decode(
                    token,
                    key.key,
                    algorithms=key.algorithms,
                    audience=self._audience,
                    issuer=self._issuer,
                    leeway=LEEWAY_SECONDS,
                    options={"require": _CLAIMS},
                )
            except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
                if number == len(fitting):
                    raise
        raise AssertionError  # the last key returns or raises
