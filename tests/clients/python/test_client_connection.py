"""Connections: TLS, context managers, many threads, event loops, and what importing the SDK costs."""

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import grpc
import numpy as np
import pytest
import trustme
from scripted_server import running
from twins import collect, connect

from innerloop import (
    TLS,
    AsyncClient,
    Client,
    ClientClosedError,
    InnerloopError,
    InvalidArgumentError,
    UnavailableError,
)
from innerloop.links import Links

IMAGES = np.zeros((2, 1, 28, 28), np.uint8)
KINDS = pytest.mark.parametrize("kind", ["sync", "async"])


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def server_credentials(authority, *, ask_client=False):
    certificate = authority.issue_cert("localhost")
    return grpc.ssl_server_credentials(
        [(certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())],
        root_certificates=authority.cert_pem.bytes() if ask_client else None,
        require_client_auth=ask_client,
    )


@KINDS
@pytest.mark.parametrize("form", ["bytes", "path"])
async def test_a_server_is_trusted_through_its_authority(kind, form, authority, tmp_path):
    roots = authority.cert_pem.bytes()
    if form == "path":
        authority.cert_pem.write_to_path(tmp_path / "roots.pem")
        roots = tmp_path / "roots.pem"
    with running(server_credentials(authority)) as server:
        client = connect(kind, server.address, tls=TLS(root_certificates=roots))
        assert await client.models()
        await client.close()


@KINDS
@pytest.mark.parametrize("tls", [True, False, TLS(trustme.CA().cert_pem.bytes())], ids=["system", "none", "another"])
async def test_a_server_of_unknown_authority_is_not_talked_to(kind, tls, authority):
    with running(server_credentials(authority)) as server:
        client = connect(kind, server.address, tls=tls, retries=0)
        with pytest.raises(UnavailableError):
            await client.models()
        await client.close()
        assert not server.received


@KINDS
async def test_a_server_that_asks_gets_the_clients_certificate(kind, authority):
    own = authority.issue_cert("client")
    roots = authority.cert_pem.bytes()
    known = TLS(roots, own.cert_chain_pems[0].bytes(), own.private_key_pem.bytes())
    with running(server_credentials(authority, ask_client=True)) as server:
        client, stranger = (
            connect(kind, server.address, tls=known),
            connect(kind, server.address, tls=TLS(roots), retries=0),
        )
        assert await client.models()
        with pytest.raises(UnavailableError):
            await stranger.models()
        await client.close()
        await stranger.close()


def test_a_certificate_without_its_key_is_refused():
    with pytest.raises(InvalidArgumentError, match="go together"):
        TLS(client_certificate=b"certificate")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("http://localhost:50051", 'leave out "http://"'),
        ("https://localhost:50051", 'leave out "https://", and set tls=True'),
        ("grpc://localhost:50051", 'leave out "grpc://"'),
        ("localhost", "name the host and the port"),
        ("localhost:", "name the host and the port"),
        ("localhost:port", "name the host and the port"),
        ("localhost:65536", "name the host and the port"),
        ("localhost:50051/path", "leave out what follows"),
        ("::1:50051", r"\[::1\]:50051"),
        ("", "name the host and the port"),
        (50051, "this is a int"),
        (None, "this is a NoneType"),
    ],
)
def test_a_target_that_names_no_server_is_refused_at_once(target, message):
    for kind in (Client, AsyncClient):
        with pytest.raises(InvalidArgumentError, match=message):
            kind(target)


@pytest.mark.parametrize("target", ["localhost:1", "[::1]:50051", "dns:///host:50051", "unix:/tmp/socket", "a-b.c:80"])
def test_targets_that_grpc_knows_are_taken(target):
    Client(target).close()


@KINDS
async def test_a_mistake_with_tls_is_named(kind, authority):
    """What is tried, and what the message says."""
    own, other = authority.cert_pem.bytes(), trustme.CA().cert_pem.bytes()
    elsewhere = authority.issue_cert("elsewhere.invalid")
    named_otherwise = grpc.ssl_server_credentials(
        [(elsewhere.private_key_pem.bytes(), elsewhere.cert_chain_pems[0].bytes())]
    )
    cases = [
        (None, TLS(own), "doesn't speak TLS: leave out tls"),
        (server_credentials(authority), False, "speaks TLS: set tls=True"),
        (server_credentials(authority), TLS(other), "authority that this client doesn't trust"),
        (named_otherwise, TLS(own), "of another host than 'localhost'"),
        (server_credentials(authority, ask_client=True), TLS(own), "asks for a certificate"),
    ]
    for credentials, tls, message in cases:
        with running(credentials) as server:
            client = connect(kind, server.address, tls=tls, retries=0)
            with pytest.raises(UnavailableError, match=message):
                await client.models()
            await client.close()


def test_pem_files_that_can_not_be_used_are_named(tmp_path):
    (tmp_path / "empty.pem").touch()
    with pytest.raises(InvalidArgumentError, match=r"root_certificates: can't read 'absent\.pem': No such file"):
        Client("localhost:1", tls=TLS("absent.pem"))
    with pytest.raises(InvalidArgumentError, match="root_certificates holds no PEM"):
        Client("localhost:1", tls=TLS(tmp_path / "empty.pem"))


@KINDS
async def test_a_closed_client_says_so(kind, server):
    client = connect(kind, server.address)
    await client.models()
    server.slow = 1.0
    under_way = asyncio.ensure_future(client.adapt("grey", IMAGES, [1, 2]))
    while not server.requests("Adapt"):
        await asyncio.sleep(0.01)
    await client.close()
    with pytest.raises(ClientClosedError):
        await under_way
    with pytest.raises(ClientClosedError):
        await client.models()


def test_a_client_that_another_thread_closes_just_before_a_call_is_sent_says_so(server, monkeypatch):
    client = Client(server.address)
    adaptation, take = client.adapt("grey", IMAGES, [1, 2]), Links.take

    def take_and_close(links):
        link = take(links)
        client.close()
        return link

    monkeypatch.setattr(Links, "take", take_and_close)
    for call in (client.models, lambda: list(adaptation.predict_stream([IMAGES]))):
        client._connection._links.closed = False
        with pytest.raises(ClientClosedError):
            call()


@KINDS
async def test_a_client_that_is_closed_during_a_stream_says_so_and_does_not_hang(kind, server):
    for _ in range(20):  # it depends on what is being sent at that moment
        client = connect(kind, server.address)
        adaptation = await client.adapt("grey", IMAGES, [1, 2])
        asked = len(server.requests("query"))
        stream = asyncio.ensure_future(collect(adaptation.predict_stream(repeat(IMAGES))))
        while len(server.requests("query")) < asked + 10:
            await asyncio.sleep(0.001)
        await asyncio.wait_for(client.close(), 10)
        with pytest.raises(ClientClosedError):
            await asyncio.wait_for(stream, 10)


def test_one_client_serves_many_threads(server):
    with Client(server.address) as client, ThreadPoolExecutor(16) as threads:

        def task(number):
            with client.adapt("grey", IMAGES, [number, -number]) as adaptation:
                return adaptation.predict(IMAGES).labels

        numbers = range(1, 101)
        assert list(threads.map(task, numbers)) == [[number, -number] for number in numbers]
        assert list(client.list_adaptations()) == []


async def test_one_async_client_serves_many_tasks(server):
    async with AsyncClient(server.address) as client:

        async def task(number):
            async with await client.adapt("grey", IMAGES, [number, -number]) as adaptation:
                return (await adaptation.predict(IMAGES)).labels

        numbers = range(1, 101)
        assert await asyncio.gather(*map(task, numbers)) == [[number, -number] for number in numbers]


def test_an_async_client_may_be_made_before_its_event_loop(server):
    client = AsyncClient(server.address)

    async def main():
        async with client:
            return await client.models()

    assert asyncio.run(main())


def test_an_async_client_serves_one_event_loop_after_another(server):
    client = AsyncClient(server.address)

    async def work(number):
        async with await client.adapt("grey", IMAGES[:, 0], [number, -number]) as adaptation:
            return (await adaptation.predict(IMAGES)).labels

    assert [asyncio.run(work(number)) for number in (1, 2, 3)] == [[1, -1], [2, -2], [3, -3]]


def test_an_async_client_and_its_adaptations_serve_threads_with_an_event_loop_each(server):
    client = AsyncClient(server.address)
    adaptation = asyncio.run(client.adapt("grey", IMAGES, [1, 2]))
    server.evict_all()

    async def work(_):
        answers = await asyncio.gather(*(adaptation.predict(IMAGES) for _ in range(5)))
        streamed = [answer.labels async for answer in adaptation.predict_stream([IMAGES] * 3)]
        return [answer.labels for answer in answers] + streamed

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda _: asyncio.run(work(_)), range(8))) == [[[1, 2]] * 8] * 8
    assert len(server.requests("AdaptPredict")) == 1
    asyncio.run(client.close())


@KINDS
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_calls_to_this_machine_take_no_proxy(kind, host, server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://localhost:1")
    monkeypatch.delenv("no_proxy", raising=False)
    client = connect(kind, server.address.replace("localhost", host), retries=0)
    assert await client.models()
    await client.close()


@KINDS
async def test_calls_elsewhere_take_the_proxy(kind, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    client = connect(kind, "innerloop.invalid:50051", retries=0)
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        await client.models()
    await client.close()


@KINDS
@pytest.mark.parametrize("seconds", [float("inf"), 1e10])
async def test_a_timeout_may_be_as_long_as_one_likes(kind, server, seconds):
    client = connect(kind, server.address, timeout=seconds)
    assert (await client.adapt("grey", IMAGES[:, 0], [1, 2])).classes == (1, 2)
    await client.close()


async def test_a_cancelled_call_ends_at_once(server):
    server.slow = 1.0
    async with AsyncClient(server.address) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.adapt("grey", IMAGES, [1, 2])


def test_the_sdk_needs_neither_torch_nor_pillow():
    code = "import sys; sys.modules['torch'] = sys.modules['PIL'] = None; import innerloop"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@KINDS
async def test_a_name_that_no_host_can_have_is_an_error_of_the_sdk(kind):
    for target in ("a..b:50051", f"{'a' * 70}.b:50051", "\ud800:50051"):
        with pytest.raises(InnerloopError):
            await connect(kind, target, retries=0, timeout=5).models()
