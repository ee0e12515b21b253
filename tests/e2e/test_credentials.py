"""API keys and tokens: who is let in, with what, and that nobody touches or learns of what is another's."""

import json
import threading
import time
from collections import Counter
from contextlib import contextmanager

import grpc
import pytest
import trustme
from examples import adapt_request, pictures, predict_request
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from running import Connection, wait_until
from token_issuer import AUDIENCE, ISSUER, Issuer, key_server
from wire import problem

from innerloop import AdaptationNotFoundError, AsyncClient, Client, PermissionDeniedError, UnauthenticatedError
from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1 import model_pb2
from innerloop_server.domain.callers import Scope
from innerloop_server.identity.new_key import new_key

pytestmark = pytest.mark.with_and_without_front_ends

UNKNOWN = (
    "this server asks callers who they are: send a valid API key or token in the metadata `authorization: Bearer ...`"
)
USUAL = [Scope.PREDICT, Scope.ADAPT]


class _Named(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Sends a credential with each call."""

    def __init__(self, *values):
        self._metadata = [("authorization", value) for value in values]

    def intercept_unary_unary(self, continuation, details, request):
        return continuation(details._replace(metadata=[*(details.metadata or ()), *self._metadata]), request)

    intercept_unary_stream = intercept_stream_stream = intercept_unary_unary


@contextmanager
def connect_with(server, *values):
    options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(server.target, options) as channel:
        yield Connection(grpc.intercept_channel(channel, _Named(*values)))


@contextmanager
def connect_by(server, credential):
    with connect_with(server, f"Bearer {credential}") as client:
        yield client


@pytest.fixture(scope="module")
def issuer():
    return Issuer("first")


@pytest.fixture(scope="module")
def keys():
    """Keys by their owners; two owners have names of which one begins the other."""
    limited = new_key("limited", USUAL)
    limits = "limits = { requests_per_second = 1 }\n"
    scopes = {scope: new_key(f"only-{scope}", [scope]) for scope in Scope}
    usual = {name: new_key(name, USUAL) for name in ("alice", "alice2", "bob")}
    return {**usual, **scopes, "limited": limited._replace(entry=limited.entry + limits)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def server(start_server, keys, issuer, folder):
    (folder / "keys.toml").write_text("\n".join(made.entry for made in keys.values()))
    (folder / "set.json").write_text(json.dumps({"keys": [issuer.jwk]}))
    settings = {"jwt_keys": folder / "set.json", "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}
    with start_server(api_keys=folder / "keys.toml", admin=True, downloads=True, **settings) as server:
        yield server


@pytest.fixture(scope="module")
def credentials(keys, issuer):
    """Two owners: of keys, of tokens, and one of each whose names are alike."""
    return {
        "keys": (keys["alice"].key, keys["bob"].key),
        "keys whose owners' names begin alike": (keys["alice"].key, keys["alice2"].key),
        "tokens": (issuer.token("alice"), issuer.token("bob")),
        "a key and a token": (keys["alice"].key, issuer.token("alice")),
    }


@pytest.fixture(
    params=["keys", "keys whose owners' names begin alike", "tokens", "a key and a token"],
)
def rivals(request, server, credentials):
    mine, theirs = credentials[request.param]
    with connect_by(server, mine) as one, connect_by(server, theirs) as other:
        yield one, other


def listed(client, **request):
    return {found.id for found in client.adaptations.ListAdaptations(pb.ListAdaptationsRequest(**request)).adaptations}


def test_two_owners_attack_each_others_ids_lists_and_deletes(rivals, fails):
    one, other = rivals
    request = adapt_request(request_id="same")
    made = one.adaptations.Adapt(request).adaptation
    assert other.adaptations.Adapt(request).adaptation.id != made.id
    for method, kind in (
        (other.adaptations.Predict, predict_request),
        (other.adaptations.GetAdaptation, lambda id_: pb.GetAdaptationRequest(adaptation_id=id_)),
        (
            other.adaptations.UpdateAdaptation,
            lambda id_: pb.UpdateAdaptationRequest(adaptation_id=id_, remove_examples=[0], request_id="same"),
        ),
        (other.adaptations.ListExamples, lambda id_: pb.ListExamplesRequest(adaptation_id=id_)),
        (
            lambda request: list(other.adaptations.DownloadAdaptation(request)),
            lambda id_: pb.DownloadAdaptationRequest(adaptation_id=id_),
        ),
        (other.adaptations.DeleteAdaptation, lambda id_: pb.DeleteAdaptationRequest(adaptation_id=id_)),
    ):
        attacked, unknown = fails(method, kind(made.id)), fails(method, kind("unknown"))
        assert attacked._replace(request_id="") == unknown._replace(request_id="")
        assert attacked.reason == "ADAPTATION_NOT_FOUND"
    assert made.id in listed(one)
    assert not listed(one) & listed(other)
    page = one.adaptations.ListAdaptations(pb.ListAdaptationsRequest(page_size=1))
    assert made.id not in listed(other, page_token=page.next_page_token)
    assert one.adaptations.Predict(predict_request(made.id))
    one.adaptations.DeleteAdaptation(pb.DeleteAdaptationRequest(adaptation_id=made.id))


def test_whoever_has_no_valid_credential_is_told_the_same_whatever_was_wrong(server, keys, issuer, fails):
    key, other = keys["alice"].key, keys["bob"].key
    wrong = (
        (),
        ("",),
        (key,),
        (f"Basic {key}",),
        (f"Bearer {key[:-1]}",),
        (f"Bearer {key[:13]}{other[13:]}",),
        (f"Bearer {new_key('alice', USUAL).key}",),
        (f"Bearer {key}", f"Bearer {key}"),
        ("Bearer",),
        ("Bearer a.b.c",),
        (f"Bearer {issuer.token(exp=time.time() - 60)}",),
        (f"Bearer {issuer.token(iss='https://mallory.example.org')}",),
        (f"Bearer {Issuer('first').token()}",),
    )
    for values in wrong:
        with connect_with(server, *values) as client:
            found = fails(client.models.ListModels, model_pb2.ListModelsRequest())
            assert (found.code, found.message, found.reason) == (
                StatusCode.UNAUTHENTICATED,
                UNKNOWN,
                "UNAUTHENTICATED",
            )
    with connect_with(server) as client:
        assert fails(client.adaptations.Adapt, adapt_request()).code is StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError) as refused:
            next(client.adaptations.StreamPredict(iter([pb.StreamPredictRequest(adaptation_id="x")])))
        assert problem(refused.value).code is StatusCode.UNAUTHENTICATED


def test_nothing_is_read_of_what_a_stranger_sends(server, keys):
    """What is too large is found out when it is read."""
    most, key = 64 * 2**20, f"Bearer {keys['bob'].key}"
    for values, code in (
        ((), StatusCode.UNAUTHENTICATED),
        ((key,), StatusCode.RESOURCE_EXHAUSTED),
    ):
        with connect_with(server, *values) as client:
            request = adapt_request()
            request.request_id = "x" * most
            assert status_of(client.adaptations.Adapt, request) is code


def test_health_is_open_to_anybody_and_reflection_to_callers(server, keys):
    asked = ServerReflectionRequest(list_services="*")
    with connect_with(server) as stranger:
        assert HealthStub(stranger.channel).Check(HealthCheckRequest()).status == HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as refused:
            list(ServerReflectionStub(stranger.channel).ServerReflectionInfo(iter([asked])))
        assert problem(refused.value)[:3] == (StatusCode.UNAUTHENTICATED, UNKNOWN, "UNAUTHENTICATED")
    with connect_by(server, keys["alice"].key) as client:
        assert list(ServerReflectionStub(client.channel).ServerReflectionInfo(iter([asked])))


def test_a_caller_whose_scope_is_missing_is_told_which(server, keys, fails):
    with (
        connect_by(server, keys[Scope.PREDICT].key) as predicting,
        connect_by(server, keys[Scope.ADAPT].key) as adapting,
        connect_by(server, keys[Scope.ADMIN].key) as admin,
    ):
        for client in (predicting, adapting, admin):
            assert client.models.ListModels(model_pb2.ListModelsRequest()).models
        made = adapting.adaptations.Adapt(adapt_request()).adaptation
        for method, request, words in (
            (predicting.adaptations.Adapt, adapt_request(), "the scope adapt"),
            (
                predicting.adaptations.ListExamples,
                pb.ListExamplesRequest(adaptation_id=made.id, diagnose=True),
                "the scope adapt",
            ),
            (adapting.adaptations.Predict, predict_request(made.id), "the scope predict"),
            (adapting.models.UnloadModel, model_pb2.UnloadModelRequest(model="nothing"), "the scope admin"),
        ):
            found = fails(method, request)
            assert found.code is StatusCode.PERMISSION_DENIED
            assert words in found.message
        unloading = fails(admin.models.UnloadModel, model_pb2.UnloadModelRequest(model="nothing"))
        assert unloading.reason == "MODEL_NOT_FOUND"


async def test_the_sdk_is_known_by_key_and_by_token(server, keys, issuer):
    with Client(server.target, api_key=keys["bob"].key) as client:
        adaptation = client.adapt("prototypes", pictures(10), list("abcde") * 2)
        assert len(list(adaptation.predict_stream([pictures(3)] * 3))) == 3
    tokens = iter([issuer.token("sdk", jti=str(number)) for number in range(3)])
    async with AsyncClient(server.target, token=lambda: next(tokens)) as client:
        assert await client.models()
        with pytest.raises(AdaptationNotFoundError):
            await client.get_adaptation(adaptation.id)
        with pytest.raises(PermissionDeniedError, match="the scope admin"):
            await client.unload_model("prototypes")
    with Client(server.target) as stranger, pytest.raises(UnauthenticatedError):
        stranger.models()


def test_a_key_has_limits_of_its_own(server, keys, fails):
    with connect_by(server, keys["limited"].key) as limited, connect_by(server, keys["alice"].key) as other:
        limited.adaptations.Adapt(adapt_request())
        limited.adaptations.Adapt(adapt_request())
        refused = fails(limited.adaptations.Adapt, adapt_request())
        assert (refused.code, refused.reason) == (StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        for _ in range(4):
            other.adaptations.Adapt(adapt_request())


def write(file, *made):
    """Replace the file of keys as a deployment does, at once."""
    scratch = file.with_suffix(".writing")
    scratch.write_text("\n".join(each.entry for each in made))
    scratch.replace(file)


def status_of(method, request):
    try:
        method(request)
    except grpc.RpcError as error:
        return error.code()
    return StatusCode.OK


def statuses(server, key):
    """How a key fares on new connections, some of which end at each front end: each looks at the file by itself.

    Of fewer connections, all might well end at the same one.
    """
    found = set()
    for _ in range(20):
        with connect_by(server, key) as client:
            found.add(status_of(client.models.ListModels, model_pb2.ListModelsRequest()))
    return found


@pytest.mark.rarely("alone")
def test_keys_are_rotated_under_load_and_revoked_ones_end_streams_too(server, folder, keys):
    file, old, new = folder / "keys.toml", new_key("rotating", USUAL), new_key("rotating", USUAL)
    present, over, seen = [old.key], threading.Event(), Counter()
    write(file, *keys.values(), old)
    wait_until(lambda: statuses(server, old.key) == {StatusCode.OK})
    with connect_by(server, old.key) as before:
        made = before.adaptations.Adapt(adapt_request()).adaptation

        def ask():
            while not over.is_set():
                with connect_by(server, present[0]) as client:
                    for _ in range(10):
                        seen[status_of(client.adaptations.Predict, predict_request(made.id))] += 1

        def queries():
            yield pb.StreamPredictRequest(sequence=1, adaptation_id=made.id, query=predict_request("").query)
            revoked.wait(30)
            yield pb.StreamPredictRequest(sequence=2, query=predict_request("").query)

        revoked, callers = threading.Event(), [threading.Thread(target=ask) for _ in range(3)]
        for caller in callers:
            caller.start()
        write(file, *keys.values(), old, new)
        wait_until(lambda: statuses(server, new.key) == {StatusCode.OK})
        present[0] = new.key
        file.write_text("[keys")
        wait_until(lambda: server.log.count("API keys changed and can't be used") >= 1)
        assert statuses(server, old.key) == {StatusCode.OK}, "a file that is broken changes nothing"
        stream = before.adaptations.StreamPredict(queries())
        assert next(stream).HasField("predictions")
        write(file, *keys.values(), new)
        wait_until(lambda: statuses(server, old.key) == {StatusCode.UNAUTHENTICATED})
        revoked.set()
        assert next(stream).error.code == StatusCode.UNAUTHENTICATED.value[0]
    over.set()
    for caller in callers:
        caller.join()
    assert seen.keys() == {StatusCode.OK}
    for made in (*keys.values(), old, new):
        assert made.key[13:] not in server.log


@pytest.mark.slow
def test_keys_of_tokens_come_from_a_url_that_may_be_away_at_first(start_server, tmp_path, monkeypatch):
    authority, first, second = trustme.CA(), Issuer("first"), Issuer("second")
    authority.cert_pem.write_to_path(tmp_path / "roots.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "roots.pem"))

    def works(issuer):
        return statuses(server, issuer.token()) == {StatusCode.OK}

    with (
        key_server(authority) as keys,
        start_server(jwt_keys=keys.url, jwt_issuer=ISSUER, jwt_audience=AUDIENCE) as server,
    ):
        assert statuses(server, first.token()) == {StatusCode.UNAUTHENTICATED}
        assert server.has_logged("keys of tokens can't be read")
        keys.publish(first)
        wait_until(lambda: works(first))
        keys.publish(first, second)
        wait_until(lambda: works(second))  # which no front end reads again for within 10 seconds
        assert works(first)
