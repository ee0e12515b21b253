"""Any number of queries: split into requests within the server's limits, and answered as if they were one."""

import numpy as np
import pytest
from scripted_server import bad_request

from innerloop import DeadlineExceededError, InvalidArgumentError

IMAGES = np.zeros((2, 1, 28, 28), np.uint8)
SUPPORT = np.zeros((2, 4), np.uint8)


def vectors(count):
    """Queries that can be told apart."""
    return np.arange(count * 4, dtype=np.float64).reshape(count, 4)


def asked(server, method="Predict"):
    """How many queries each request had, and all of them."""
    queries = [request.query.tensor for request in server.requests(method)]
    arrays = [np.frombuffer(query.data, "<f4").reshape(query.shape) for query in queries]
    return [len(array) for array in arrays], np.concatenate(arrays) if arrays else None


@pytest.fixture
async def limited(client, server):
    """A client of a server that takes 100 queries a request."""
    server.models["vectors"].limits.max_query = 100
    return client


@pytest.mark.parametrize(("count", "expected"), [(64, [64]), (100, [100]), (101, [100, 1]), (250, [100, 100, 50])])
async def test_queries_are_split_within_the_limit_of_the_model(limited, server, count, expected):
    adaptation = await limited.adapt("vectors", SUPPORT, ["a", "b"])
    answers = await adaptation.predict(vectors(count), return_logits=True)
    sizes, queries = asked(server)
    assert sizes == expected
    np.testing.assert_array_equal(queries, vectors(count))
    assert len(answers) == len(answers.labels) == len(answers.logits) == count
    assert answers.labels == [label for size in expected for label in (["a", "b"] * size)[:size]]
    assert not answers.probabilities.flags.writeable
    assert len(server.requests("GetModel")) == (count > 64)


async def test_large_queries_are_split_by_the_size_of_the_request(client, server):
    server.models["colour"].limits.max_request_bytes = 1_000_000
    support = np.zeros((2, 3, 32, 32), np.uint8)
    adaptation = await client.adapt("colour", support, ["a", "b"])
    files = [bytes([index]) * 150_000 for index in range(20)]
    assert len(await adaptation.predict(files)) == 20
    requests = server.requests("Predict")
    assert [file for request in requests for file in request.query.images.files] == files
    assert max(request.ByteSize() for request in requests) <= 1_000_000
    assert len(requests) == 4, "as large as they may be"


async def test_a_support_set_of_files_that_no_request_has_room_for_is_not_sent(client, server):
    server.models["colour"].limits.max_request_bytes = 1_000_000
    with pytest.raises(InvalidArgumentError, match="takes 2 MiB, and a request to this server up to 1 MiB; give fewer"):
        await client.adapt("colour", [b"a" * 900_000, b"b" * 900_000], ["a", "b"])
    assert not server.requests("Adapt")


async def test_a_part_leaves_room_for_making_the_adaptation_again(client, server):
    server.models["colour"].limits.max_request_bytes = 1_000_000
    adaptation = await client.adapt("colour", [b"a" * 300_000, b"b" * 300_000], ["a", "b"])
    server.evict_all()
    assert len(await adaptation.predict([b"q" * 150_000] * 10)) == 10
    assert max(request.ByteSize() for request in server.requests("AdaptPredict")) <= 1_000_000


async def test_without_a_word_from_the_server_requests_stay_below_what_grpc_servers_take(client, server):
    adaptation = await client.adapt("vectors", SUPPORT, ["a", "b"])
    count = 600_000
    assert len(await adaptation.predict(np.zeros((count, 4), np.float32))) == count
    assert all(request.ByteSize() < 4 * 2**20 for request in server.requests("Predict"))


async def test_adapt_predict_splits_its_queries_and_keeps_nothing(limited, server):
    answers = await limited.adapt_predict("vectors", SUPPORT, ["a", "b"], query=vectors(250))
    assert len(answers) == 250
    assert asked(server, "AdaptPredict")[0] == [100]
    assert asked(server)[0] == [100, 50]
    assert not server.kept


async def test_adapt_predict_keeps_nothing_even_if_its_parts_take_longer_than_one_call_may(make_client, server):
    server.models["vectors"].limits.max_query = 100
    server.slow_predict = 0.4
    client = make_client(timeout=1.0)
    assert len(await client.adapt_predict("vectors", SUPPORT, ["a", "b"], query=vectors(500))) == 500
    assert not server.kept


async def test_an_adaptation_that_is_lost_between_two_parts_is_made_again(limited, server):
    adaptation = await limited.adapt("vectors", SUPPORT, ["a", "b"])
    server.restart()
    assert len(await adaptation.predict(vectors(250))) == 250
    assert asked(server, "AdaptPredict")[0] == [100]


async def test_a_refusal_names_the_query_by_its_place_among_all(limited, server):
    server.script("Predict", None, bad_request("query.images.files[3]", "is damaged"))
    adaptation = await limited.adapt("vectors", SUPPORT, ["a", "b"])
    with pytest.raises(InvalidArgumentError, match="query 103: is damaged"):
        await adaptation.predict(vectors(250))


async def test_a_timeout_holds_for_all_parts_together(limited, server):
    adaptation = await limited.adapt("vectors", SUPPORT, ["a", "b"])
    server.slow_predict = 0.2
    with pytest.raises(DeadlineExceededError):
        await adaptation.predict(vectors(1000), timeout=0.9)
