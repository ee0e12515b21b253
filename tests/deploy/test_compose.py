"""The compose file: a server, its metrics and its dashboards, that find each other and nobody else finds them."""

import re
from pathlib import PurePosixPath

import pytest
from deployment import DEPLOY, environment, lineage, read_dockerfile, read_yaml

from innerloop_server.settings import ServerSettings, load_settings

COMPOSE = read_yaml("compose.yaml")
SERVICES = COMPOSE["services"]
STAGES = read_dockerfile("Dockerfile")


def mounts(service):
    """Source, target and whether it is read-only, of every folder and file of this machine."""
    for volume in SERVICES[service].get("volumes", ()):
        if isinstance(volume, dict):
            yield volume["source"], volume["target"], volume.get("read_only", False)
        elif volume.startswith("."):
            source, target, *mode = volume.split(":")
            yield source, target, mode == ["ro"]


def with_defaults(text):
    """A value as compose makes it when the variables in it are not set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


@pytest.fixture
def settings(monkeypatch, tmp_path):
    """What the server makes of its environment."""
    given = {**environment(lineage(STAGES, "cpu")), **SERVICES["server"]["environment"]}
    for name, value in given.items():
        if name.startswith("INNERLOOP_"):
            monkeypatch.setenv(name, with_defaults(value))
    return load_settings({"models": tmp_path})


def test_every_variable_is_a_setting_of_the_server():
    text = (DEPLOY / "compose.yaml").read_text()
    names = {name.removeprefix("INNERLOOP_").lower() for name in re.findall(r"INNERLOOP_\w+", text)}
    assert "models" in names
    assert names <= set(ServerSettings.model_fields)


def test_models_are_mounted_where_the_server_looks_for_them():
    models = environment(lineage(STAGES, "cpu"))["INNERLOOP_MODELS"]
    assert [target for source, target, _ in mounts("server") if "INNERLOOP_MODELS" in source] == [models]


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_mounted_exists_and_can_only_be_read(service):
    for source, _, read_only in mounts(service):
        assert read_only
        assert source.startswith("${") or (DEPLOY / source).exists()


@pytest.mark.parametrize("service", SERVICES)
def test_services_are_open_to_this_machine_only(service):
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in SERVICES[service]["ports"])


@pytest.mark.parametrize("service", SERVICES)
def test_services_come_back_and_can_change_nothing_but_their_data(service):
    options = SERVICES[service]
    assert options["restart"] == "unless-stopped"
    assert options["read_only"]
    assert options["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("service", SERVICES)
def test_services_are_built_here_or_pinned(service):
    options = SERVICES[service]
    assert "build" in options or re.search(r":v?\d+\.\d+\.\d+$", options["image"])


@pytest.mark.parametrize("service", SERVICES)
def test_services_have_a_health_check(service):
    in_image = service == "server" and "HEALTHCHECK" in dict(lineage(STAGES, "cpu"))
    assert in_image or SERVICES[service]["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize(("file", "target"), [("compose.yaml", "cpu"), ("compose.cuda.yaml", "cuda")])
def test_the_server_is_built_from_the_dockerfile(file, target):
    build = {**SERVICES["server"]["build"], **read_yaml(file)["services"]["server"]["build"]}
    assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
    assert build["target"] == target
    assert target in STAGES


def test_docker_waits_until_the_server_has_stopped(settings):
    grace = float(SERVICES["server"]["stop_grace_period"].removesuffix("s"))
    assert grace > settings.drain_seconds + settings.grace_seconds


def test_prometheus_scrapes_the_server(settings):
    (job,) = read_yaml("prometheus/prometheus.yml")["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"server:{settings.metrics_port}"]}]
    flags = dict(flag.removeprefix("--").split("=") for flag in SERVICES["prometheus"]["command"])
    assert flags["config.file"] in {target for _, target, _ in mounts("prometheus")}
    assert f"prometheus:{flags['storage.tsdb.path']}" in SERVICES["prometheus"]["volumes"]


def test_grafana_asks_prometheus():
    (datasource,) = read_yaml("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    port = SERVICES["prometheus"]["ports"][0].rpartition(":")[2]
    assert datasource["url"] == f"http://prometheus:{port}"


def test_grafana_finds_its_dashboards():
    (provider,) = read_yaml("grafana/provisioning/dashboards/innerloop.yaml")["providers"]
    sources = {target: DEPLOY / source for source, target, _ in mounts("grafana")}
    home = PurePosixPath(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (sources[provider["options"]["path"]] / home.name).is_file()
    assert str(home.parent) == provider["options"]["path"]
    for kind in ("datasources", "dashboards"):
        assert list(sources[f"/etc/grafana/provisioning/{kind}"].glob("*.yaml"))
