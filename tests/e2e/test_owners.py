"""Identities by client certificate: nobody touches, or learns of, what is another's."""

import grpc
import pytest
import trustme
from examples import adapt_request, predict_request
from running import connect

from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1 import model_pb2

pytestmark = pytest.mark.with_and_without_front_ends


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def server(start_server, authority, tmp_path_factory):
    """A server that asks for client certificates; it has room for few adaptations."""
    folder = tmp_path_factory.mktemp("tls")
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(folder / "certificate.pem", append=True)
    authority.cert_pem.write_to_path(folder / "ca.pem")
    with start_server(
        tls_certificate=folder / "certificate.pem",
        tls_key=folder / "key.pem",
        tls_client_ca=folder / "ca.pem",
        adaptation_bytes=2048,
        admin=True,
        admin_subjects="CN=nobody; CN=alice,OU=Clients,O=Example",
    ) as server:
        yield server


@pytest.fixture(scope="module")
def connect_as(server, authority):
    def connect_as(name, issuer=authority):
        certificate = issuer.issue_cert(
            f"{name}@example.org", common_name=name, organization_name="Example", organization_unit_name="Clients"
        )
        credentials = grpc.ssl_channel_credentials(
            authority.cert_pem.bytes(),
            certificate.private_key_pem.bytes(),
            b"".join(blob.bytes() for blob in certificate.cert_chain_pems),
        )
        return connect(server, credentials)

    return connect_as


@pytest.fixture
def alice(connect_as):
    with connect_as("alice") as client:
        yield client


@pytest.fixture
def bob(connect_as):
    with connect_as("bob") as client:
        yield client


def test_another_owners_adaptation_does_not_exist_for_you(alice, bob, fails):
    adaptation = alice.adaptations.Adapt(adapt_request()).adaptation
    for method, request in (
        (bob.adaptations.Predict, predict_request(adaptation.id)),
        (bob.adaptations.GetAdaptation, pb.GetAdaptationRequest(adaptation_id=adaptation.id)),
        (bob.adaptations.DeleteAdaptation, pb.DeleteAdaptationRequest(adaptation_id=adaptation.id)),
    ):
        other = fails(method, request)
        unknown = fails(method, type(request)(adaptation_id="unknown"))
        assert other._replace(request_id="") == unknown._replace(request_id="")
        assert other.reason == "ADAPTATION_NOT_FOUND"
    assert alice.adaptations.Predict(predict_request(adaptation.id))


def test_lists_hold_ones_own_adaptations_only(alice, bob):
    made = alice.adaptations.Adapt(adapt_request()).adaptation.id

    def listed(client):
        return {found.id for found in client.adaptations.ListAdaptations(pb.ListAdaptationsRequest()).adaptations}

    assert made in listed(alice)
    assert not listed(alice) & listed(bob)


def test_another_owners_evicted_adaptation_does_not_exist_for_you_either(alice, bob, fails):
    adaptation = alice.adaptations.Adapt(adapt_request()).adaptation
    for seed in range(10):
        alice.adaptations.Adapt(adapt_request(seed=seed))
    assert fails(alice.adaptations.Predict, predict_request(adaptation.id)).reason == "ADAPTATION_EVICTED"
    assert fails(bob.adaptations.Predict, predict_request(adaptation.id)).reason == "ADAPTATION_NOT_FOUND"


def test_owners_may_choose_the_same_request_id(alice, bob):
    request = adapt_request(request_id="same")
    assert alice.adaptations.Adapt(request).adaptation.id != bob.adaptations.Adapt(request).adaptation.id


def test_the_same_subject_on_another_connection_is_the_same_owner(connect_as):
    with connect_as("carol") as first:
        made = first.adaptations.Adapt(adapt_request()).adaptation
    with connect_as("carol") as second:
        assert second.adaptations.Predict(predict_request(made.id))


def test_only_the_subjects_that_the_operator_names_are_admins(alice, bob, fails):
    request = model_pb2.UnloadModelRequest(model="nothing")
    assert fails(bob.models.UnloadModel, request).reason == "NOT_ADMIN"
    assert fails(bob.models.LoadModel, model_pb2.LoadModelRequest(model="nothing")).reason == "NOT_ADMIN"
    assert fails(alice.models.UnloadModel, request).reason == "MODEL_NOT_FOUND"


def write_tls(folder, authority):
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "certificate.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    authority.cert_pem.write_to_path(folder / "ca.pem")


def can_list(server, authority):
    certificate = authority.issue_cert("someone@example.org")
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes(), certificate.private_key_pem.bytes(), chain)
    with connect(server, credentials, [("grpc.use_local_subchannel_pool", 1)]) as client:
        try:
            client.models.ListModels(model_pb2.ListModelsRequest(), timeout=5)
        except grpc.RpcError:
            return False
    return True


@pytest.mark.rarely("alone")
def test_tls_files_that_are_replaced_hold_for_new_connections(start_server, authority, tmp_path):
    other = trustme.CA()
    write_tls(tmp_path, authority)
    files = {"tls_certificate": "certificate.pem", "tls_key": "key.pem", "tls_client_ca": "ca.pem"}
    with start_server(**{name: tmp_path / file for name, file in files.items()}) as server:
        assert (can_list(server, authority), can_list(server, other)) == (True, False)
        (tmp_path / "key.pem").write_text("half a key")
        assert can_list(server, authority), "files that do not fit together change nothing"
        write_tls(tmp_path, other)
        assert (can_list(server, authority), can_list(server, other)) == (False, True)


def test_strangers_are_turned_away(connect_as, server):
    with connect_as("mallory", trustme.CA()) as stranger, pytest.raises(grpc.RpcError) as refused:
        stranger.adaptations.Adapt(adapt_request(), timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    with connect(server) as plain, pytest.raises(grpc.RpcError) as refused:
        plain.adaptations.Adapt(adapt_request(), timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
