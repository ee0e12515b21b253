"""The port that front ends share."""

import socket

import pytest

from innerloop_server.frontend.port import SharedPort
from innerloop_server.settings import ConfigurationError

ELSEWHERE = "192.0.2.1"
"""An address that is kept for documentation: of no machine."""


@pytest.fixture
def addresses(monkeypatch):
    """Says which addresses a host has."""

    def give(*found):
        def resolve(host, port, **_):
            del host
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)

    return give


@pytest.mark.parametrize("found", [("127.0.0.1", ELSEWHERE), (ELSEWHERE, "127.0.0.1")])
def test_addresses_that_a_host_has_by_name_only_are_left_out(addresses, found):
    # As where a machine without IPv6 says that localhost is ::1, too.
    addresses(*found)
    port = SharedPort("localhost", 0)
    assert port.port
    with pytest.raises(ConfigurationError, match="taken"):
        SharedPort("localhost", port.port)
    port.close()
    SharedPort("localhost", port.port).close()


def test_a_host_none_of_whose_addresses_is_of_this_machine_is_refused(addresses):
    addresses(ELSEWHERE)
    with pytest.raises(ConfigurationError, match="not of this machine"):
        SharedPort("elsewhere", 0)
