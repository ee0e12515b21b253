"""The server's TLS files, which may be replaced while it serves."""

import ssl
from pathlib import Path

import grpc
import structlog

from innerloop_server.identity.followed_file import Stamp, stamp_of
from innerloop_server.settings import ConfigurationError, ServerSettings


class TlsFiles:
    """Certificate, key and authority, read again when they change.

    Args:
        certificate: PEM file of the server's certificate chain.
        key: PEM file of its private key.
        authority: PEM file of the authority that client certificates must come from; None asks clients for none.

    Raises:
        ConfigurationError: they can't be used.
    """

    def __init__(self, certificate: Path, key: Path, authority: Path | None) -> None:
        self._certificate, self._key, self._authority = certificate, key, authority
        self._stamps = self._look()
        self._first = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials that follow the files: each new connection gets what they hold then."""
        return grpc.dynamic_ssl_server_credentials(
            self._first,
            self._fetch,  # type: ignore[arg-type]  # None, which its types leave out, says that nothing has changed
            require_client_authentication=self._authority is not None,
        )

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """What the files hold, if they have changed and can be used; gRPC asks in each handshake."""
        stamps = self._look()
        if stamps == self._stamps:
            return None
        self._stamps = stamps
        try:
            configuration = self._read()
        except ConfigurationError as error:
            # Files that are replaced one after the other do not fit together for a moment.
            structlog.get_logger().warning("TLS files changed and can't be used", reason=str(error))
            return None
        structlog.get_logger().info("TLS files read again")
        return configuration

    def _look(self) -> list[Stamp | None]:
        return [stamp_of(file) for file in (self._certificate, self._key, self._authority) if file is not None]

    def _read(self) -> grpc.ServerCertificateConfiguration:
        chain = (_content(self._key), _content(self._certificate))
        authority = _content(self._authority) if self._authority is not None else None
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificate, self._key, password="")
            if authority is not None:
                context.load_verify_locations(cadata=authority.decode())
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ConfigurationError("tls_certificate: the TLS files don't fit together or aren't PEM") from error
        return grpc.ssl_server_certificate_configuration([chain], authority)


def tls_files(settings: ServerSettings) -> TlsFiles | None:
    """The TLS files that the settings name, if any.

    Raises:
        ConfigurationError: they can't be used.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return TlsFiles(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"can't read {file}: {error.strerror}") from error
