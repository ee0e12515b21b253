"""Owners by certificate, and by other credentials."""

import contextlib
from datetime import datetime, timedelta

import grpc
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from token_issuer import AUDIENCE, ISSUER, Issuer

from innerloop_server.domain.errors import UnauthenticatedError
from innerloop_server.identity.api_keys import ApiKeys
from innerloop_server.identity.authenticator import Authenticator
from innerloop_server.identity.certificates import Certificates, owner_of
from innerloop_server.identity.new_key import new_key
from innerloop_server.identity.token_keys import FileKeys
from innerloop_server.identity.tokens import Tokens
from innerloop_server.transport.grpc.identity import Identity

KEYS = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
KINDS = [NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME]
SUBJECTS = st.lists(st.tuples(st.sampled_from(KINDS), st.text("ab,=+\\\\", min_size=1, max_size=6)), max_size=3)


def certificate(subject, key=KEYS[0], serial=1):
    name = x509.Name([x509.NameAttribute(kind, value) for kind, value in subject])
    builder = x509.CertificateBuilder(name, name, key.public_key(), serial)
    start = datetime(2026, 1, 1)
    builder = builder.not_valid_before(start).not_valid_after(start + timedelta(days=serial))
    return builder.sign(key, SHA256())


@given(SUBJECTS, SUBJECTS)
def test_other_subjects_are_other_owners_however_they_read(one, other):
    alike = owner_of(certificate(one)) == owner_of(certificate(other))
    assert alike == (one == other)


def test_a_renewed_certificate_keeps_its_owner():
    subject = [(NameOID.COMMON_NAME, "me")]
    assert owner_of(certificate(subject)) == owner_of(certificate(subject, KEYS[1], serial=2))


def test_certificates_without_a_subject_are_told_apart_by_their_keys():
    assert owner_of(certificate([])) == owner_of(certificate([], serial=2))
    assert owner_of(certificate([])) != owner_of(certificate([], KEYS[1]))


async def test_owners_of_different_kinds_of_credentials_are_never_the_same(tmp_path):
    issuer = Issuer()
    owners = [owner_of(certificate([])), owner_of(certificate([(NameOID.COMMON_NAME, "me")])), "anonymous"]
    names = [name for owner in owners for name in (owner, owner.partition(":")[2], f"api-key:{owner}") if name]
    made = [new_key(name, []) for name in names]
    (tmp_path / "keys.toml").write_text("\n".join(each.entry for each in made))
    (tmp_path / "keys.pem").write_bytes(issuer.pem)
    keys, tokens = ApiKeys(tmp_path / "keys.toml"), Tokens(FileKeys(tmp_path / "keys.pem"), ISSUER, AUDIENCE)
    owners += [keys.caller(each.key).owner for each in made]
    owners += [(await tokens.caller(issuer.token(name))).owner for name in {*names, *owners}]
    assert len(set(owners)) == len(owners)


@contextlib.asynccontextmanager
async def served(identity, credentials=None):
    """The port of a server on which each call is answered with its caller's owner."""

    async def answer(request, context):
        del request
        try:
            return (await identity.caller(context)).owner.encode()
        except UnauthenticatedError:
            return b"nobody"

    server = grpc.aio.server()
    server.add_registered_method_handlers("Who", {"Am": grpc.unary_unary_rpc_method_handler(answer)})
    address = "127.0.0.1:0"
    port = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    await server.start()
    yield port
    await server.stop(None)


async def answers(channel, *sent):
    """What calls with these values of the metadata `authorization` are answered; None is a call without."""
    ask = channel.unary_unary("/Who/Am")
    metadata = [None if value is None else (("authorization", value),) for value in sent]
    return [(await ask(b"", metadata=each)).decode() for each in metadata]


async def test_a_credential_goes_before_the_certificate_of_its_connection(tmp_path):
    authority, made = trustme.CA(), new_key("me", [])
    (tmp_path / "keys.toml").write_text(made.entry)
    own, theirs = authority.issue_cert("localhost"), authority.issue_cert("caller@example.org", common_name="caller")
    keys = [each.private_key_pem.bytes() for each in (own, theirs)]
    chains = [each.cert_chain_pems[0].bytes() for each in (own, theirs)]
    roots = authority.cert_pem.bytes()
    identity = Identity(Certificates(()), Authenticator(ApiKeys(tmp_path / "keys.toml"), None))
    async with (
        served(identity, grpc.ssl_server_credentials([(keys[0], chains[0])], roots, require_client_auth=True)) as port,
        grpc.aio.secure_channel(
            f"localhost:{port}", grpc.ssl_channel_credentials(roots, keys[1], chains[1])
        ) as channel,
    ):
        by_certificate = owner_of(x509.load_pem_x509_certificate(chains[1]))
        sent = (None, f"Bearer {made.key}", f"bearer {made.key}", "Bearer wrong", f"Basic {made.key}", "")
        assert await answers(channel, *sent) == [by_certificate, *["api-key:me"] * 2, *["nobody"] * 3]


async def test_where_no_credentials_are_taken_what_is_sent_changes_nothing():
    async with served(Identity(None, None)) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert await answers(channel, None, "Bearer something") == ["anonymous"] * 2
