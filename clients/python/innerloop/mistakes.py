"""Finds out which mistake in a client's settings keeps it from connecting.

gRPC says of a connection in the clear to a server that speaks TLS only that it was closed, and names whichever address
it tried last. So we knock ourselves, once, when a call has failed for good.
"""

import socket
import ssl

from innerloop.channel import TLS, host_and_port

CONNECTING_FAILED = "failed to connect"
"""How gRPC's messages begin when no connection could be made."""

_PATIENCE_SECONDS = 1.0
"""Seconds that the server may take for each step: to accept the connection, and to answer the handshake."""

_ANOTHER_PROTOCOL = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNEXPECTED_EOF_WHILE_READING", "RECORD_LAYER_FAILURE")


def mistake_in_connecting(target: str, tls: bool | TLS) -> str:
    """Explanation of what is wrong with these settings, and what to do; empty when nothing can be said.

    Args:
        target: where the server is, as the client was told.
        tls: whether and how to use TLS, as the client was told.
    """
    place = host_and_port(target)
    if place is None:
        return ""
    try:
        with socket.create_connection(place, _PATIENCE_SECONDS) as connection:
            return _knock(connection, place[0], tls)
    except (OSError, UnicodeError):  # the latter for names that can be none of a host
        return f"nothing listens on {target}, or it can't be reached; is the server running, and is this its port?"


def _knock(connection: socket.socket, host: str, tls: bool | TLS) -> str:
    """Explanation that a TLS handshake over an open connection gives."""
    connection.settimeout(_PATIENCE_SECONDS)
    try:
        with _context(tls).wrap_socket(connection, server_hostname=host) as secured:
            if not tls:
                return "the server speaks TLS: set tls=True, or TLS(root_certificates=...) for an authority of your own"
            return _certificate_missing(secured, tls)
    except ssl.SSLCertVerificationError as error:
        return _distrust(error, host)
    except ssl.SSLError as error:
        if tls and error.reason in _ANOTHER_PROTOCOL:
            return "the server doesn't speak TLS: leave out tls, or give the server its tls_certificate and tls_key"
        return ""
    except (OSError, UnicodeError):
        return ""


def _context(tls: bool | TLS) -> ssl.SSLContext:
    roots = tls.roots() if isinstance(tls, TLS) else None
    context = ssl.create_default_context(cadata=roots.decode("ascii", errors="ignore") if roots else None)
    context.set_alpn_protocols(["h2"])
    if not tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _certificate_missing(secured: ssl.SSLSocket, tls: bool | TLS) -> str:
    """Whether the server refuses a client that shows no certificate, which it does only after the handshake."""
    if isinstance(tls, TLS) and tls.client_certificate is not None:
        return ""
    try:
        refused = not secured.recv(1)
    except ssl.SSLError as error:
        refused = "CERTIFICATE" in (error.reason or "")
    return "the server asks for a certificate: give TLS(client_certificate=..., client_key=...)" if refused else ""


def _distrust(error: ssl.SSLCertVerificationError, host: str) -> str:
    said = error.verify_message
    if "ostname mismatch" in said or "IP address mismatch" in said:
        return f"the server's certificate is of another host than {host!r}: connect by the name that it was issued for"
    if "expired" in said or "not yet valid" in said:
        return f"the server's certificate is not valid now ({said}): renew it, or set this machine's clock"
    return (
        f"the server's certificate is of an authority that this client doesn't trust ({said}): "
        "give that authority's certificate, TLS(root_certificates=...)"
    )
