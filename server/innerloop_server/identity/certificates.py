"""Owners by client certificate."""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from innerloop_server.domain.callers import CALLERS_SCOPES, Caller, Scope

CERTIFICATES = 4096
"""Certificates whose callers are remembered."""


class Certificates:
    """Names callers by their certificates; they have all scopes but that of admins, which few are given by name.

    Args:
        admins: subjects, in the form of RFC 4514, of those who have the scope of admins.

    Raises:
        ValueError: one of them is no subject.
    """

    def __init__(self, admins: Sequence[str]) -> None:
        self._admins = [x509.Name.from_rfc4514_string(subject) for subject in admins]
        # A connection's calls all carry its certificate, and reading it takes longer than looking it up.
        self._caller_of = lru_cache(CERTIFICATES)(self._read)

    def caller(self, pem: bytes) -> Caller:
        """The caller whom a certificate stands for."""
        return self._caller_of(pem)

    def _read(self, pem: bytes) -> Caller:
        certificate = x509.load_pem_x509_certificate(pem)
        admin = {Scope.ADMIN} if certificate.subject in self._admins else set()
        return Caller(owner_of(certificate), scopes=CALLERS_SCOPES | admin)


def owner_of(certificate: x509.Certificate) -> str:
    """The owner that a certificate stands for: a digest of its subject, or of its key where it has no subject.

    The subject is taken as the bytes of its DER encoding. Two subjects that read alike when their names are joined are
    two owners; a certificate that is renewed keeps its owner.
    """
    if len(certificate.subject.rdns):
        return f"subject:{sha256(certificate.subject.public_bytes()).hexdigest()}"
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"key:{sha256(key).hexdigest()}"
