"""Who is calling."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from innerloop_server.domain.callers import Caller

ANONYMOUS = "anonymous"

CERTIFICATES = 4096
"""Certificates whose callers are remembered."""

Context = grpc.aio.ServicerContext[Any, Any]
Identify = Callable[[Context], Caller]
"""Says who makes an RPC."""


def anonymous(context: Context) -> Caller:
    """The caller of a server that asks for no certificates.

    All adaptations belong to one owner then, and everybody may do what the settings allow. The device's time is shared
    by addresses: whoever opens many connections has one share, and so have all who call through one proxy.
    """
    return Caller(ANONYMOUS, _host(context.peer()), admin=True)


class CertificateIdentity:
    """Names callers by their certificates.

    Args:
        admins: subjects, in the form of RFC 4514, of those who may load and unload models.

    Raises:
        ValueError: one of them is no subject.
    """

    def __init__(self, admins: Sequence[str]) -> None:
        self._admins = [x509.Name.from_rfc4514_string(subject) for subject in admins]
        # A connection's calls all carry its certificate, and reading it takes longer than looking it up.
        self._caller_of = lru_cache(CERTIFICATES)(self._read)

    def caller(self, context: Context) -> Caller:
        """The caller whose certificate the connection was opened with."""
        return self._caller_of(b"".join(context.auth_context().get("x509_pem_cert", ())))

    def _read(self, pem: bytes) -> Caller:
        certificate = x509.load_pem_x509_certificate(pem)
        return Caller(owner_of(certificate), admin=certificate.subject in self._admins)


def owner_of(certificate: x509.Certificate) -> str:
    """The owner that a certificate stands for: a digest of its subject, or of its key where it has no subject.

    The subject is taken as the bytes of its DER encoding. Two subjects that read alike when their names are joined are
    two owners; a certificate that is renewed keeps its owner.
    """
    if len(certificate.subject.rdns):
        return f"subject:{sha256(certificate.subject.public_bytes()).hexdigest()}"
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"key:{sha256(key).hexdigest()}"


def _host(peer: str) -> str:
    """The address of gRPC's name for a peer, such as ipv4:127.0.0.1:50000, without the port.

    >>> _host("ipv4:127.0.0.1:50000"), _host("unix:")
    ('ipv4:127.0.0.1', 'unix')
    """
    return peer.rpartition(":")[0]
