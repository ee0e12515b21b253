"""A port that several processes share."""

import errno
import socket
from contextlib import ExitStack
from typing import Any

from innerloop_server.settings import ConfigurationError

ATTEMPTS = 10
"""Attempts to find a port that is free on all addresses of a host."""


NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""Errors that binding raises if a host's name stands for an address that this machine lacks, such as ::1."""


class SharedPort:
    """Keeps a port for the front ends of one server, whether any of them listens on it or not.

    Args:
        host: address or name.
        port: zero takes a free one.

    Attributes:
        port: the port.

    Raises:
        ConfigurationError: it is taken, or the address is not of this machine.
    """

    def __init__(self, host: str, port: int) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._sockets, self.port = _bind(host, port)
                return
            except OSError as error:
                if port or attempt == ATTEMPTS:
                    shown = f"[{host}]" if ":" in host else host
                    raise ConfigurationError(
                        f"port: can't listen on {shown}:{port}: it is taken or not of this machine"
                    ) from error

    def close(self) -> None:
        """Give the port back."""
        self._sockets.close()


def _bind(host: str, port: int) -> tuple[ExitStack, int]:
    """Sockets bound to one port of every address of a host that this machine has, none of them listening.

    Raises:
        OSError: the port is taken, or this machine has none of the addresses.
    """
    bound, missing = False, OSError()
    with ExitStack() as sockets:
        for family, kind, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            try:
                keeper = sockets.enter_context(socket.socket(family, kind))
                _claim(keeper, (address[0], port, *address[2:]))
            except OSError as error:
                if error.errno not in NOT_HERE:
                    raise
                missing = error
                continue
            bound, port = True, keeper.getsockname()[1]
        if not bound:
            raise missing
        return sockets.pop_all(), port


def _claim(keeper: socket.socket, address: tuple[Any, ...]) -> None:
    """Bind a socket to an address that nobody else has, and let others share it from then on."""
    if keeper.family is socket.AF_INET6:
        keeper.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    # A port which another server has is refused, though it connected a moment ago.
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind(address)
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
