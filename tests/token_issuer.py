"""Issues JSON Web Tokens for tests, as an identity provider would, and serves its keys over HTTPS."""

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER, AUDIENCE = "https://issuer.example.org", "innerloop"


def claims(subject: str = "alice", **others: Any) -> dict[str, Any]:
    """The claims of a token that is valid for a minute; None leaves one out."""
    usual = {"sub": subject, "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 60, "scope": "predict adapt"}
    return {name: value for name, value in {**usual, **others}.items() if value is not None}


class Issuer:
    """A private key and its id."""

    def __init__(self, key_id: str | None = None, kind: str = "ES256") -> None:
        self.id, self.algorithm = key_id, kind
        self.key: Any
        if kind == "ES256":
            self.key = ec.generate_private_key(ec.SECP256R1())
        elif kind == "EdDSA":
            self.key = ed25519.Ed25519PrivateKey.generate()
        else:
            self.key = rsa.generate_private_key(65537, 2048)

    def token(self, subject: str = "alice", **others: Any) -> str:
        """A signed token."""
        headers = {"kid": self.id} if self.id is not None else None
        return jwt.encode(claims(subject, **others), self.key, self.algorithm, headers)

    @property
    def pem(self) -> bytes:
        """The public key."""
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key as an entry of a set."""
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        entry = json.loads(algorithm.to_jwk(self.key.public_key()))
        return {**entry, "use": "sig", "alg": self.algorithm, **({"kid": self.id} if self.id is not None else {})}


class KeyServer:
    """What is served at a URL.

    Attributes:
        url: of the set.
        content: of the set; None has requests fail.
        asked: requests so far.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.content: bytes | None = None
        self.asked = 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    def publish(self, *issuers: Issuer) -> None:
        """Serve the public keys of issuers."""
        self.content = json.dumps({"keys": [issuer.jwk for issuer in issuers]}).encode()


@contextmanager
def key_server(authority: trustme.CA) -> Iterator[KeyServer]:
    """A server over TLS on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            serving.asked += 1
            serving.may_answer.wait(20)
            self.send_response(503 if serving.content is None else 200)
            self.end_headers()
            self.wfile.write(serving.content or b"")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    serving = KeyServer(f"https://localhost:{server.server_port}/keys")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield serving
    finally:
        serving.may_answer.set()
        server.shutdown()
        server.server_close()
        thread.join()
