"""Owners by certificate, and by other credentials."""

from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from token_issuer import AUDIENCE, ISSUER, Issuer

from innerloop_server.identity.api_keys import ApiKeys
from innerloop_server.identity.certificates import owner_of
from innerloop_server.identity.new_key import new_key
from innerloop_server.identity.token_keys import FileKeys
from innerloop_server.identity.tokens import Tokens

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
