"""A port that several processes share."""

import socket
from contextlib import ExitStack

from innerloop_server.settings import ConfigurationError

ATTEMPTS = 10
"""To find a port that is free on all addresses of a host."""


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
    """Sockets bound to one port of every address of a host, none of them listening."""
    with ExitStack() as sockets:
        for family, kind, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            keeper = sockets.enter_context(socket.socket(family, kind))
            if family is socket.AF_INET6:
                keeper.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # Bound for itself alone, so that a port which another server has is refused, though it connected a moment
            # ago; shared from then on.
            keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            keeper.bind((address[0], port, *address[2:]))
            keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            port = keeper.getsockname()[1]
        return sockets.pop_all(), port
