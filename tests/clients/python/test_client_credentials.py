"""API keys and tokens: sent with every call, never in the clear by mistake, and quoted nowhere."""

import asyncio
import itertools
import pickle
import traceback

import grpc
import numpy as np
import pytest
import trustme
from scripted_server import Failure, running
from twins import collect, connect

from innerloop import TLS, AsyncClient, Client, InvalidArgumentError, UnauthenticatedError
from innerloop_command.bench.settings import BenchSettings
from innerloop_command.client_options import ServerAccess

KEY = "ilk_0a0a0a0a_" + "x" * 43
IMAGES = np.zeros((2, 1, 28, 28), np.uint8)
KINDS = pytest.mark.parametrize("kind", ["sync", "async"])


async def use(client):
    """Make a call of each kind."""
    adaptation = await client.adapt("omniglot", IMAGES, ["a", "b"])
    await adaptation.predict(IMAGES)
    await collect(adaptation.predict_stream([IMAGES, IMAGES]))
    await client.models()


def sent(server):
    return {(received.method, received.authorization) for received in server.received if received.method != "query"}


async def test_a_key_goes_along_with_every_call(make_client, server):
    await use(make_client(api_key=KEY))
    assert len(sent(server)) == 4
    assert {authorization for _, authorization in sent(server)} == {f"Bearer {KEY}"}


async def test_without_a_key_nothing_is_sent(make_client, server):
    await use(make_client())
    assert {authorization for _, authorization in sent(server)} == {None}


async def test_a_function_is_asked_for_a_token_before_every_call_and_attempt(make_client, server):
    numbers = itertools.count()
    client = make_client(token=lambda: f"token-{next(numbers)}")
    server.script("ListModels", Failure(grpc.StatusCode.UNAVAILABLE))
    await client.models()
    await use(client)
    seen = [received.authorization for received in server.received if received.method != "query"]
    assert seen == [f"Bearer token-{number}" for number in range(len(seen))]


@pytest.mark.parametrize("held_back", [0, 3])
async def test_a_stream_whose_token_expires_goes_on_with_another(make_client, server, held_back):
    numbers = itertools.count()
    adaptation = await make_client(token=lambda: f"token-{next(numbers)}").adapt("omniglot", IMAGES, ["a", "b"])
    server.held_back = held_back

    def source():
        for number in range(100):
            if number in (40, 90):  # so far ahead of the answers no client reads: another stream is there by then
                server.expired = {received.authorization for received in server.received}
            yield IMAGES[: 1 + number % 2]

    answers = await collect(adaptation.predict_stream(source()))
    assert [len(answer) for answer in answers] == [1, 2] * 50
    assert len(server.requests("StreamPredict")) == 3


async def test_a_stream_whose_credential_can_not_be_renewed_ends(make_client, server):
    server.expired = {f"Bearer {KEY}"}
    adaptation = await make_client(api_key=KEY).adapt("omniglot", IMAGES, ["a", "b"])
    with pytest.raises(UnauthenticatedError):
        await collect(adaptation.predict_stream([IMAGES]))
    assert not server.requests("Predict")


async def test_the_asynchronous_client_waits_for_a_token(server):
    async def renew():
        await asyncio.sleep(0.001)
        return "renewed"

    async with AsyncClient(server.address, token=renew) as client:
        await use(client)
    assert {authorization for _, authorization in sent(server)} == {"Bearer renewed"}
    with Client(server.address, token=renew) as synchronous, pytest.raises(InvalidArgumentError, match="AsyncClient"):
        synchronous.models()


async def test_what_the_function_raises_reaches_the_caller(make_client):
    def fail():
        raise LookupError("no session")

    with pytest.raises(LookupError, match="no session"):
        await use(make_client(token=fail))


@KINDS
async def test_a_key_goes_over_tls(kind):
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    pair = (certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())
    with running(grpc.ssl_server_credentials([pair])) as server:
        client = connect(kind, server.address, tls=TLS(authority.cert_pem.bytes()), api_key=KEY)
        await use(client)
        await client.close()
    assert {authorization for _, authorization in sent(server)} == {f"Bearer {KEY}"}


@KINDS
@pytest.mark.parametrize("secret", [{"api_key": KEY}, {"token": KEY}, {"token": lambda: KEY}])
@pytest.mark.parametrize("target", ["example.org:50051", "10.0.0.1:50051", "dns:///example.org:50051"])
def test_a_key_does_not_leave_this_machine_in_the_clear_unless_told_to(kind, secret, target):
    with pytest.raises(InvalidArgumentError, match="others could read it") as refused:
        connect(kind, target, **secret)
    assert KEY not in str(refused.value)
    connect(kind, target, **secret, insecure=True)
    connect(kind, target, **secret, tls=True)


@pytest.mark.parametrize("target", ["localhost:1", "127.0.0.1:1", "[::1]:1", "unix:/run/innerloop"])
def test_this_machine_is_told_in_the_clear(target):
    Client(target, api_key=KEY)


@KINDS
@pytest.mark.parametrize("secret", ["", f"{KEY}\n", f"{KEY} ", f"{KEY}ü", 7, KEY.encode()])
async def test_what_can_not_be_sent_is_refused_without_quoting_it(kind, secret, server):
    with pytest.raises(InvalidArgumentError, match=r"^api_key") as refused:
        connect(kind, server.address, api_key=secret)
    assert KEY not in "".join(traceback.format_exception(refused.value))
    client = connect(kind, server.address, token=lambda: secret)
    with pytest.raises(InvalidArgumentError, match=r"^token") as refused:
        await client.models()
    assert KEY not in str(refused.value)
    await client.close()


def test_a_key_and_a_token_are_too_much():
    with pytest.raises(InvalidArgumentError, match="one of them"):
        Client("localhost:1", api_key=KEY, token=KEY)


async def test_a_server_that_does_not_know_the_caller_says_so_without_quoting(make_client, server):
    server.script("ListModels", Failure(grpc.StatusCode.UNAUTHENTICATED, "who are you?"))
    with pytest.raises(UnauthenticatedError) as refused:
        await make_client(api_key=KEY).models()
    assert KEY not in "".join(traceback.format_exception(refused.value))


def test_no_repr_shows_a_key():
    client = Client("localhost:1", api_key=KEY)
    settings, access = BenchSettings("omniglot", api_key=KEY), ServerAccess("localhost:1", False, KEY, 30.0, "normal")
    for shown in (client, client._connection, client._connection._bearer, settings, access):
        assert KEY not in repr(shown)
    assert pickle.loads(pickle.dumps(settings)).api_key == KEY, "processes of the load generator need it"


def test_the_shell_takes_a_key_from_a_file_or_the_environment(run, server, tmp_path, monkeypatch):
    (tmp_path / "key").write_text(f"{KEY}\n")
    assert run("models", "--api-key-file", tmp_path / "key")[0] == 0
    monkeypatch.setenv("INNERLOOP_API_KEY", "another")
    assert run("models")[0] == 0
    assert run("models", "--api-key-file", tmp_path / "key")[0] == 0
    assert [received.authorization for received in server.received] == [
        f"Bearer {KEY}",
        "Bearer another",
        f"Bearer {KEY}",
    ]


def test_the_shell_says_what_is_wrong_with_a_key_without_quoting_it(run, tmp_path, monkeypatch):
    (tmp_path / "key").write_bytes(b"\xff")
    for arguments, words in (
        (["--api-key-file", tmp_path / "key"], "holds no key"),
        (["--api-key-file", tmp_path / "missing"], "No such file"),
    ):
        code, out, error = run("models", *arguments)
        assert (code, out) == (1, "")
        assert words in error
    monkeypatch.setenv("INNERLOOP_API_KEY", KEY)
    code, _, error = run("models", "--server", "example.org:50051")
    assert code == 1
    assert "others could read it" in error
    assert KEY not in error
