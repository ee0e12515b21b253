"""A connection that somebody on the way has silently forgotten is given up, and another one made."""

import asyncio
import threading
import time

import numpy as np
import pytest
from scripted_server import running
from twins import collect, connect

from innerloop import Client, DeadlineExceededError, channel
from innerloop.links import Links
from innerloop_server.transport.grpc import listen

IMAGES = np.zeros((2, 1, 28, 28), np.uint8)


class ForgetfulProxy:
    """Passes TCP connections on to a server, and can forget those that are open: they stay open, and nothing passes."""

    def __init__(self, target):
        self.host, port = target.rsplit(":", 1)
        self.port = int(port)
        self.connections = 0
        self._writers = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._connect, "127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._forgotten = set()

    def forget(self):
        """Nothing passes any more on the connections of now."""
        self._forgotten = set(range(self.connections))

    def close(self):
        async def close():
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()
            await asyncio.sleep(0.05)

        self._run(close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _connect(self, reader, writer):
        number = self.connections
        self.connections += 1
        far_reader, far_writer = await asyncio.open_connection(self.host, self.port)
        self._writers += [writer, far_writer]
        await asyncio.gather(self._pass(number, reader, far_writer), self._pass(number, far_reader, writer))

    async def _pass(self, number, reader, writer):
        try:
            while data := await reader.read(65536):
                if number not in self._forgotten:
                    writer.write(data)
            if number not in self._forgotten:
                writer.close()
        except OSError:
            pass


@pytest.fixture
def proxy(server):
    proxy = ForgetfulProxy(server.address)
    yield proxy
    proxy.close()


@pytest.fixture(params=["sync", "async"])
async def client(request, proxy):
    client = connect(request.param, proxy.address)
    yield client
    await client.close()


async def test_the_second_call_after_a_connection_was_forgotten_works(client, proxy):
    adaptation = await client.adapt("grey", IMAGES, [1, 2])
    proxy.forget()
    with pytest.raises(DeadlineExceededError):
        await adaptation.predict(IMAGES, timeout=0.3)
    assert (await adaptation.predict(IMAGES, timeout=5)).labels == [1, 2]
    assert proxy.connections == 2


async def test_the_second_stream_works_too(client, proxy):
    adaptation = await client.adapt("grey", IMAGES, [1, 2])
    proxy.forget()
    with pytest.raises(DeadlineExceededError):
        await collect(adaptation.predict_stream([IMAGES] * 3, timeout=0.3))
    assert len(await collect(adaptation.predict_stream([IMAGES] * 3, timeout=5))) == 3
    assert proxy.connections == 2


async def test_keep_alive_mends_the_connection_within_the_call(proxy, monkeypatch):
    monkeypatch.setattr(channel, "KEEPALIVE_SECONDS", 0.5)
    monkeypatch.setattr(channel, "KEEPALIVE_TIMEOUT_SECONDS", 0.5)
    for kind in ("sync", "async"):
        client = connect(kind, proxy.address)
        adaptation = await client.adapt("grey", IMAGES, [1, 2])
        proxy.forget()
        assert (await adaptation.predict(IMAGES, timeout=20)).labels == [1, 2]
        proxy.forget()
        assert len(await collect(adaptation.predict_stream([IMAGES] * 3, timeout=20))) == 3
        await client.close()


async def test_a_slow_answer_costs_no_connection_on_which_others_come(client, proxy, server):
    adaptation = await client.adapt("grey", IMAGES, [1, 2])
    server.slow = 1.0
    slow = asyncio.ensure_future(client.adapt("grey", IMAGES, [1, 2], timeout=0.5))
    await asyncio.sleep(0.2)
    await adaptation.predict(IMAGES)
    with pytest.raises(DeadlineExceededError):
        await slow
    await adaptation.predict(IMAGES)
    assert proxy.connections == 1


async def test_calls_under_way_on_a_connection_that_is_given_up_still_get_their_answers(client, proxy, server):
    server.slow = 1.0
    patient = asyncio.ensure_future(client.adapt("grey", IMAGES, [1, 2]))
    while not server.requests("Adapt"):
        await asyncio.sleep(0.01)
    with pytest.raises(DeadlineExceededError):
        await client.adapt("grey", IMAGES, [1, 2], timeout=0.1)
    server.slow = 0.0
    assert (await client.adapt("grey", IMAGES, [3, 4])).classes == (3, 4)
    assert proxy.connections == 2
    assert (await patient).classes == (1, 2)


def test_a_link_is_closed_by_its_last_call_or_by_who_gives_it_up_whichever_comes_last():
    links = Links(lambda: channel.open_channel("localhost:1", None))
    link = links.take()
    assert (links.give_up(link), links.release(link)) == (False, True)
    link = links.take()
    assert (links.release(link), links.give_up(link), links.give_up(link)) == (False, True, False)


def test_servers_permit_as_many_pings_as_clients_send(monkeypatch):
    assert listen.MIN_PING_SECONDS < channel.KEEPALIVE_SECONDS
    for module in (listen, channel):  # in a hundredth of the time
        for setting in ("KEEPALIVE_SECONDS", "KEEPALIVE_TIMEOUT_SECONDS", "MIN_PING_SECONDS"):
            if hasattr(module, setting):
                monkeypatch.setattr(module, setting, getattr(module, setting) / 100)
    with running(options=listen.keepalive_options()) as server:
        proxy = ForgetfulProxy(server.address)
        with Client(proxy.address) as client:
            client.models()
            time.sleep(3.5)  # gRPC sends no more than one ping a second, and the third too many ends a connection
            client.models()
            assert proxy.connections == 1
        proxy.close()
