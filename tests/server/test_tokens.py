"""JSON Web Tokens, valid ones and those of attackers, and the keys that check them."""

import asyncio
import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64encode

import jwt
import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from token_issuer import AUDIENCE, ISSUER, Issuer, claims, key_server

from innerloop_server.domain.callers import Scope
from innerloop_server.identity import authenticator, token_keys
from innerloop_server.identity.api_keys import ApiKeys
from innerloop_server.identity.authenticator import Authenticator
from innerloop_server.identity.followed_file import UnusableFileError
from innerloop_server.identity.invalid_credential import InvalidCredentialError
from innerloop_server.identity.new_key import new_key
from innerloop_server.identity.token_keys import FileKeys, UrlKeys
from innerloop_server.identity.tokens import LEEWAY_SECONDS, Tokens


@pytest.fixture(scope="module")
def issuer():
    return Issuer("first", "RS256")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "keys"


def tokens_of(file, *issuers):
    file.write_text(json.dumps({"keys": [issuer.jwk for issuer in issuers]}))
    return Tokens(FileKeys(file), ISSUER, AUDIENCE)


async def refusal(tokens, token):
    with pytest.raises(InvalidCredentialError) as refused:
        await tokens.caller(token)
    return str(refused.value)


@pytest.mark.parametrize("kind", ["RS256", "PS256", "ES256", "EdDSA"])
@pytest.mark.parametrize("form", ["pem", "set"])
async def test_a_token_stands_for_its_subject_with_its_scopes(file, kind, form):
    issuer, other = Issuer("one", kind), Issuer("other")
    if form == "pem":
        file.write_bytes(other.pem + issuer.pem)
        tokens = Tokens(FileKeys(file), ISSUER, AUDIENCE)
    else:
        tokens = tokens_of(file, other, issuer)
    caller = await tokens.caller(issuer.token(scope="adapt openid admin"))
    assert caller.scopes == {Scope.ADAPT, Scope.ADMIN}
    again = await tokens.caller(issuer.token(scope=None))
    assert (again.owner, again.scopes) == (caller.owner, frozenset())
    assert (await tokens.caller(issuer.token("bob"))).owner != caller.owner


async def test_the_same_subject_of_another_issuer_is_another_owner(file, issuer):
    one = await tokens_of(file, issuer).caller(issuer.token())
    other = await Tokens(FileKeys(file), "other", AUDIENCE).caller(issuer.token(iss="other"))
    assert one.owner != other.owner


def encoded(part):
    return urlsafe_b64encode(part if isinstance(part, bytes) else json.dumps(part).encode()).rstrip(b"=").decode()


def unsigned(header, body):
    return f"{encoded(header)}.{encoded(body)}."


def signed_by_secret(header, secret):
    """A token signed by a shared secret, such as the bytes of a public key, which everybody has."""
    content = f"{encoded(header)}.{encoded(claims())}"
    return f"{content}.{encoded(hmac.new(secret, content.encode(), hashlib.sha256).digest())}"


def altered(token):
    header, _, signature = token.split(".")
    return f"{header}.{encoded(claims('mallory'))}.{signature}"


HOSTILE = {
    "expired": lambda issuer: issuer.token(exp=time.time() - LEEWAY_SECONDS - 1),
    "never expires": lambda issuer: issuer.token(exp=None),
    "expires at no time": lambda issuer: issuer.token(exp="tomorrow"),
    "not valid yet": lambda issuer: issuer.token(nbf=time.time() + 60),
    "of another issuer": lambda issuer: issuer.token(iss="https://mallory.example.org"),
    "of an issuer that begins alike": lambda issuer: issuer.token(iss=ISSUER[:-1]),
    "of no issuer": lambda issuer: issuer.token(iss=None),
    "for another audience": lambda issuer: issuer.token(aud="others"),
    "for no audience": lambda issuer: issuer.token(aud=None),
    "of nobody": lambda issuer: issuer.token(sub=None),
    "of an empty name": lambda issuer: issuer.token(""),
    "of a number": lambda issuer: issuer.token(sub=7),
    "with a list of scopes": lambda issuer: issuer.token(scope=["predict"]),
    "signed by somebody else": lambda _: Issuer("first", "RS256").token(),
    "altered": lambda issuer: altered(issuer.token()),
    "unsigned": lambda _: unsigned({"alg": "none", "typ": "JWT"}, claims()),
    "unsigned, with a key": lambda _: unsigned({"alg": "none", "kid": "first"}, claims()),
    "unsigned in other letters": lambda _: unsigned({"alg": "NoNe", "kid": "first"}, claims()),
    "unsigned by name of RS256": lambda _: unsigned({"alg": "RS256", "kid": "first"}, claims()),
    "signed by the public key as a secret": lambda issuer: signed_by_secret({"alg": "HS256"}, issuer.pem),
    "the same with its name": lambda issuer: signed_by_secret({"alg": "HS256", "kid": "first"}, issuer.pem),
    "the same without the last line break": lambda issuer: signed_by_secret({"alg": "HS256"}, issuer.pem.strip()),
    "signed by an empty secret": lambda _: signed_by_secret({"alg": "HS256"}, b""),
    "with a key of its own": lambda _: jwt.encode(
        claims(), (own := Issuer(None, "RS256")).key, "RS256", {"jwk": own.jwk, "kid": "first"}
    ),
    "with a critical extension": lambda issuer: jwt.encode(
        claims(), issuer.key, "RS256", {"kid": "first", "crit": ["odd"], "odd": True}
    ),
    "with a key id that is no text": lambda _: unsigned({"alg": "RS256", "kid": ["first"]}, claims()),
    "nested deep": lambda _: unsigned(b"[" * 5000, claims()),
    "of infinite life": lambda _: unsigned({"alg": "RS256", "kid": "first"}, b'{"exp": 1e999}'),
    "nothing": lambda _: "",
    "dots": lambda _: "..",
    "words": lambda _: "no token",
    "no ASCII": lambda issuer: f"ü{issuer.token()}",
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_a_hostile_token_stands_for_nobody(file, issuer, kind):
    tokens = tokens_of(file, issuer)
    assert await tokens.caller(issuer.token())
    token = HOSTILE[kind](issuer)
    said = await refusal(tokens, token)
    assert not any(part and part in said for part in ("mallory", "tomorrow", *token.split(".")))


async def test_the_public_key_in_pem_is_no_shared_secret_either(file, issuer):
    file.write_bytes(issuer.pem)
    tokens = Tokens(FileKeys(file), ISSUER, AUDIENCE)
    assert await tokens.caller(issuer.token())
    for kind in (kind for kind in HOSTILE if "secret" in kind or "unsigned" in kind):
        await refusal(tokens, HOSTILE[kind](issuer))


async def test_a_token_that_was_valid_expires(file, issuer, monkeypatch):
    tokens, token = tokens_of(file, issuer), issuer.token()
    await tokens.caller(token)
    later = time.time() + 60 + LEEWAY_SECONDS
    monkeypatch.setattr(time, "time", lambda: later)
    assert await refusal(tokens, token) == "the token has expired"


async def test_tokens_of_a_key_that_was_taken_away_are_refused_and_those_of_new_ones_are_not(file, issuer):
    other, tokens = Issuer("second"), tokens_of(file, issuer)
    old, new = issuer.token(), other.token()
    await tokens.caller(old)
    await refusal(tokens, new)
    tokens_of(file, other)
    for _ in range(2):
        await tokens.look()
    await tokens.caller(new)
    await refusal(tokens, old)
    file.write_text("{")
    for _ in range(2):
        await tokens.look()
    await tokens.caller(new)


def pem_of(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def secret_set():
    return json.dumps({"keys": [{"kty": "oct", "k": encoded(b"secret" * 10), "alg": "HS256"}]}).encode()


def private(issuer):
    return issuer.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda _: b"", "neither PEM nor"),
        (lambda _: b"[1]", "neither PEM nor"),
        (lambda _: b'{"keys": []}', "neither PEM nor"),
        (lambda _: secret_set(), "no public key that checks"),
        (private, "private key"),
        (lambda _: pem_of(rsa.generate_private_key(65537, 1024)), "2048"),
        (lambda issuer: issuer.pem.replace(b"MII", b"AAA"), "no public key"),
        (lambda _: trustme.CA().cert_pem.bytes(), "no public key"),
    ],
)
def test_a_file_without_public_keys_is_refused_with_the_reason(file, issuer, content, words):
    file.write_bytes(content(issuer))
    with pytest.raises(UnusableFileError, match=words):
        FileKeys(file)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    authority, patch = trustme.CA(), pytest.MonkeyPatch()
    roots = tmp_path_factory.mktemp("roots") / "ca.pem"
    authority.cert_pem.write_to_path(roots)
    patch.setenv("SSL_CERT_FILE", str(roots))
    with key_server(authority) as server:
        yield server
    patch.undo()


async def test_keys_come_from_a_url_and_follow_it(served, issuer, monkeypatch):
    served.publish(issuer)
    tokens = Tokens(UrlKeys(served.url), ISSUER, AUDIENCE)
    await tokens.look()
    await tokens.caller(issuer.token())
    other = Issuer("second")
    served.publish(issuer, other)
    monkeypatch.setattr(token_keys, "RETRY_SECONDS", 0.0)
    before = served.asked
    await asyncio.gather(*(tokens.caller(other.token(jti=str(number))) for number in range(10)))
    assert served.asked == before + 1, "callers who bring a new key together have it read once"


async def test_a_token_that_names_an_unknown_key_does_not_have_the_url_read_each_time(served, issuer):
    served.publish(issuer)
    tokens = Tokens(UrlKeys(served.url), ISSUER, AUDIENCE)
    await tokens.look()
    before = served.asked
    for number in range(10):
        await refusal(tokens, Issuer(f"unknown {number}").token())
    assert served.asked == before


async def test_a_url_that_can_not_be_read_leaves_the_keys_as_they_are(served, issuer, monkeypatch):
    served.publish(issuer)
    monkeypatch.setattr(token_keys, "REFRESH_SECONDS", 0.0)
    monkeypatch.setattr(token_keys, "RETRY_SECONDS", 0.0)
    tokens = Tokens(UrlKeys(served.url), ISSUER, AUDIENCE)
    await tokens.look()
    for content in (None, b"{", b"[]", b'{"keys": []}', b"[" * 100_000, secret_set()):
        served.content, before = content, served.asked
        await tokens.look()
        assert served.asked == before + 1
        await tokens.caller(issuer.token())
    served.publish(Issuer("second"))
    await tokens.look()
    await refusal(tokens, issuer.token(jti="another"))


async def test_a_url_that_does_not_answer_holds_up_nobody_else(served, issuer):
    served.publish(issuer)
    keys = UrlKeys(served.url)
    served.may_answer.clear()
    looking = asyncio.create_task(keys.look())
    began = time.monotonic()
    await asyncio.sleep(0.05)
    assert time.monotonic() - began < 1
    assert not looking.done()
    served.may_answer.set()
    await looking
    assert keys.keys


async def test_a_url_that_never_ends_is_waited_for_no_longer_than_is_said(served, issuer, monkeypatch):
    monkeypatch.setattr(token_keys, "FETCH_SECONDS", 0.1)
    served.publish(issuer)
    keys = UrlKeys(served.url)
    monkeypatch.setattr(keys._client, "timeout", 30)  # as where a byte comes now and then
    served.may_answer.clear()
    before = served.asked
    await keys.look()
    assert not await keys.seek()
    served.may_answer.set()
    assert await keys.seek()
    assert keys.keys
    assert served.asked == before + 1


async def test_while_a_url_does_not_answer_api_keys_are_revoked_all_the_same(served, tmp_path, monkeypatch):
    monkeypatch.setattr(token_keys, "REFRESH_SECONDS", 0.0)
    monkeypatch.setattr(authenticator, "LOOK_SECONDS", 0.01)
    served.publish(Issuer("first"))
    file, made = tmp_path / "keys.toml", new_key("acme", [Scope.PREDICT])
    file.write_text(made.entry)
    known = Authenticator(ApiKeys(file), Tokens(UrlKeys(served.url), ISSUER, AUDIENCE))
    await known.start()
    assert await known.knows(made.key)
    before = served.asked
    served.may_answer.clear()
    while served.asked == before:
        await asyncio.sleep(0.01)
    file.write_text("")
    async with asyncio.timeout(5):
        while await known.knows(made.key):
            await asyncio.sleep(0.01)
    served.may_answer.set()
    known.stop()
