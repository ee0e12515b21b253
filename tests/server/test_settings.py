"""Configuration: where it comes from, and what is refused."""

import re
import sys
from pathlib import Path

import pytest
import typer.testing

from innerloop_learner.zoo import zoo_folder
from innerloop_server.backends import parse_backends
from innerloop_server.commands import app
from innerloop_server.make_engine import make_engine
from innerloop_server.make_mirror import make_mirror
from innerloop_server.make_store import data_folder
from innerloop_server.models.folder import find_models
from innerloop_server.settings import ConfigurationError, ServerSettings, load_settings
from innerloop_server.transport.grpc.make_identity import make_authenticator, make_certificates

CLAIMS = {"jwt_issuer": "issuer", "jwt_audience": "audience"}


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def toml(tmp_path):
    def write(content):
        file = tmp_path / "server.toml"
        file.write_text(content)
        return file

    return write


def test_flags_come_before_the_environment_before_the_file_before_defaults(models, toml, monkeypatch):
    file = toml(f'models = "{models}"\nport = 1\nmetrics_port = 2\nmax_query = 3\n')
    monkeypatch.setenv("INNERLOOP_PORT", "10")
    monkeypatch.setenv("INNERLOOP_METRICS_PORT", "20")
    settings = load_settings({"port": 100}, file)
    assert (settings.port, settings.metrics_port, settings.max_query, settings.host) == (100, 20, 3, "127.0.0.1")


def test_sizes_may_have_units(models):
    assert load_settings({"models": models, "adaptation_bytes": "2GiB"}).adaptation_bytes == 2 * 2**30


def test_the_usual_life_is_a_month_or_the_longest_that_is_allowed(models):
    month = 30 * 86400
    for flags, life in (({}, month), ({"max_time_to_live": 60}, 60), ({"max_time_to_live": 0}, month)):
        assert load_settings({"models": models, **flags}).usual_time_to_live == life
    assert load_settings({"models": models, "max_time_to_live": 0, "time_to_live": 0}).usual_time_to_live == 0


def test_models_in_a_store_are_looked_at_each_minute_and_those_in_a_folder_when_asked(models):
    for place, flags, seconds in (
        (str(models), {}, 0),
        ("s3://bucket/models", {}, 60),
        ("s3://bucket/models", {"watch": 0}, 0),
        (str(models), {"watch": 5}, 5),
    ):
        settings = load_settings({"models": place, **flags})
        assert (settings.models, settings.look_seconds) == (place, seconds)


def test_a_store_that_can_not_be_used_is_named(tmp_path, monkeypatch):
    settings = load_settings({"models": "nothing://me:secret@bucket", "data_dir": tmp_path})
    with pytest.raises(ConfigurationError, match=r"^models: nothing:// is no store that fsspec knows$"):
        make_mirror(settings)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ConfigurationError, match=r'^models: fsspec is not installed; pip install "innerloop\[s3\]"$'):
        make_mirror(settings)


def test_data_lies_where_the_user_keeps_data_unless_a_folder_is_named(models, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/me")
    for home, folder in ((str(tmp_path), tmp_path / "innerloop"), ("", Path("/home/me/.local/share/innerloop"))):
        monkeypatch.setenv("XDG_DATA_HOME", home)
        assert data_folder(load_settings({"models": models})) == folder
    assert data_folder(load_settings({"models": models, "data_dir": tmp_path})) == tmp_path


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"models": "s3:/bucket"}, "models: there is no folder s3:/bucket"),
        ({"models": "/nowhere"}, "models: there is no folder /nowhere"),
        ({"port": 7000, "metrics_port": 7000}, "metrics_port: is the same as port .7000."),
        ({"port": 70_000}, "port: .*65535"),
        ({"tls_certificate": __file__}, "tls_key: is needed together with tls_certificate"),
        ({"tls_key": __file__}, "tls_certificate: is needed together with tls_key"),
        ({"tls_client_ca": __file__}, "tls_client_ca: needs tls_certificate and tls_key"),
        ({"host": "0.0.0.0"}, "host: 0.0.0.0 is open to others, .* or say insecure"),
        ({"host": "::", "tls_certificate": __file__, "tls_key": __file__}, "host: :: is open to others"),
        (
            {"host": "::", "api_keys": __file__},
            "host: :: is open .*, and keys and tokens would travel in the clear",
        ),
        ({"api_keys": "/nowhere"}, "api_keys: there is no file /nowhere"),
        ({"jwt_keys": "/nowhere", **CLAIMS}, "jwt_keys: there is no file /nowhere"),
        ({"jwt_keys": __file__, "jwt_issuer": "a"}, "jwt_audience: is needed together with jwt_keys"),
        ({"jwt_audience": "a"}, "jwt_keys: is needed together with jwt_audience"),
        ({"jwt_keys": "http://example.org/keys", **CLAIMS}, "jwt_keys: .* give an https:// URL"),
        (
            {"admin": True, **dict.fromkeys(("tls_certificate", "tls_key", "tls_client_ca"), __file__)},
            "admin: needs admin_subjects",
        ),
        ({"tls_certificate": "/nowhere", "tls_key": __file__}, "tls_certificate: there is no file /nowhere"),
        ({"adaptation_bytes": -1}, "adaptation_bytes: is not a size"),
        ({"adaptation_bytes": 0}, "adaptation_bytes: .*greater than 0"),
        ({"max_batch_tasks": 0}, "max_batch_tasks: .*greater than or equal to 1"),
        ({"store": "mysql://host"}, "store: is none of memory, sqlite:PATH, redis://"),
        ({"durability": "maybe"}, "durability: .*'none', 'behind' or 'through'"),
        ({"time_to_live": 0}, "time_to_live: is longer than max_time_to_live"),
        ({"time_to_live": 10, "max_time_to_live": 5}, "time_to_live: is longer than max_time_to_live"),
        ({"max_time_to_live": float("inf")}, "max_time_to_live: .*less than or equal to"),
        ({"grace_seconds": float("inf")}, "grace_seconds: .*finite"),
        ({"drain_seconds": float("nan")}, "drain_seconds: "),
        ({"device": "tpu"}, "device: "),
        ({"backend": "jax"}, "backend: is one of auto, torch, onnxruntime, or MODEL=BACKEND, not 'jax'"),
        ({"backend": "birds=jax"}, "backend: .*, not 'birds=jax'"),
        ({"backend": "=torch"}, "backend: .*, not '=torch'"),
        ({"backend": "torch,"}, "backend: .*, not ''"),
        ({"backend": "torch, onnxruntime"}, "backend: names two backends for all models"),
        ({"backend": "birds=torch, birds=auto"}, "backend: names two backends for the model 'birds'"),
        ({"require_signed": "/nowhere"}, "require_signed: /nowhere can't be read"),
        ({"require_signed": __file__}, "require_signed: .* holds no public key"),
        ({"ready_file": "/nowhere/file"}, "ready_file: there is no folder /nowhere"),
    ],
)
def test_a_contradictory_or_impossible_setting_is_named(models, flags, words):
    with pytest.raises(ConfigurationError) as refused:
        load_settings({"models": models, **flags})
    assert re.match(words, str(refused.value))
    assert "\n" not in str(refused.value)


def test_a_model_has_its_own_backend_or_the_one_of_all(models, toml):
    settings = load_settings({}, toml(f'models = "{models}"\nbackend = "onnxruntime, a=b=torch, birds = auto"\n'))
    backends = parse_backends(settings.backend)
    assert [backends.of(model) for model in ("others", "a=b")] == ["onnxruntime", "torch"]
    assert backends.of("birds") == parse_backends("auto").of("others") == "torch"
    assert parse_backends("birds=onnxruntime").needed == {"torch", "onnxruntime"}


def test_auto_is_onnx_runtime_where_pytorch_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert parse_backends("auto").needed == {"onnxruntime"}


@pytest.mark.parametrize(
    ("missing", "backend", "extra"), [("torch", "torch", "server"), ("onnxruntime", "a=onnxruntime", "onnx-server")]
)
def test_a_backend_that_is_not_installed_is_named_with_its_extra(models, monkeypatch, missing, backend, extra):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError) as refused:
        make_engine(load_settings({"models": models, "backend": backend}))
    assert str(refused.value) == f'backend: {missing} is not installed; pip install "innerloop[{extra}]"'


def test_what_a_backend_can_not_compute_is_refused(models):
    with pytest.raises(ConfigurationError, match="precision: bfloat16 needs PyTorch"):
        make_engine(load_settings({"models": models, "backend": "onnxruntime", "precision": "bfloat16"}))


def test_unknown_keys_of_the_file_are_named(models, toml):
    with pytest.raises(ConfigurationError, match=r"^prot: no such setting$"):
        load_settings({"models": models}, toml("prot = 1"))


@pytest.mark.parametrize("name", ["api_keys", "jwt_keys"])
def test_a_file_of_keys_that_can_not_be_used_is_named(models, tmp_path, name):
    (tmp_path / "keys").write_text("[nonsense")
    settings = load_settings({"models": models, name: str(tmp_path / "keys"), **(CLAIMS if name == "jwt_keys" else {})})
    with pytest.raises(ConfigurationError, match=f"^{name}: .*/keys is "):
        make_authenticator(settings)


def test_admins_who_are_no_subjects_are_refused(models):
    files = dict.fromkeys(("tls_certificate", "tls_key", "tls_client_ca"), __file__)
    with pytest.raises(ConfigurationError, match=r"^admin_subjects: "):
        make_certificates(load_settings({"models": models, "admin_subjects": "ops", **files}))


def test_an_unreadable_file_is_named(models, toml, tmp_path):
    with pytest.raises(ConfigurationError, match="not valid TOML"):
        load_settings({"models": models}, toml("port ="))
    with pytest.raises(ConfigurationError, match="can't read"):
        load_settings({"models": models}, tmp_path / "missing.toml")


def test_every_setting_is_a_flag_that_says_what_it_does():
    shown = typer.testing.CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200"}).output
    for name, field in ServerSettings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in shown
        assert field.description


def test_without_models_those_that_come_with_innerloop_are_served():
    models = Path(load_settings({}).models)
    assert models == zoo_folder()
    assert find_models(models)


def test_a_refused_configuration_ends_with_code_2_and_one_clear_line():
    result = typer.testing.CliRunner().invoke(app, ["serve", "--models", "/nowhere"])
    assert result.exit_code == 2
    assert re.fullmatch(r"innerloop serve: models: .*\n", result.stderr)


def test_admins_are_named_by_subjects_with_semicolons_between(models):
    files = dict.fromkeys(("tls_certificate", "tls_key", "tls_client_ca"), __file__)
    flags = {"models": models, "admin": True, "admin_subjects": r"CN=ops,O=Example; CN=a\;b", **files}
    assert load_settings(flags).subjects_of_admins == ("CN=ops,O=Example", r"CN=a\;b")


@pytest.mark.parametrize("known", [{"api_keys": __file__}, {"jwt_keys": "https://example.org/keys", **CLAIMS}])
def test_others_are_served_over_tls_if_credentials_say_who_they_are(models, known):
    tls = {"tls_certificate": __file__, "tls_key": __file__}
    assert load_settings({"models": models, "host": "0.0.0.0", "admin": True, **tls, **known}).takes_credentials
    assert load_settings({"models": models, "host": "0.0.0.0", "insecure": True, **known}).takes_credentials


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_this_machine_alone_needs_no_certificates(models, host):
    assert load_settings({"models": models, "host": host}).host == host
