"""The images: small, unprivileged, configured as the server understands, and built from files that exist."""

import re
import tomllib
from importlib.util import find_spec

import pytest
from deployment import ROOT, command, environment, last, lineage, read_dockerfile

from innerloop_command.app import InnerloopCommands
from innerloop_server.settings import ConfigurationError, ServerSettings, load_settings

STAGES = read_dockerfile("Dockerfile")
IMAGES = ["cpu", "cuda", "onnx"]


@pytest.fixture(params=IMAGES)
def image(request):
    """Instructions of a final stage and all it is built on."""
    return lineage(STAGES, request.param)


def test_the_cpu_image_is_the_default():
    assert list(STAGES)[-1] == "cpu"
    assert set(IMAGES) <= set(STAGES)


def test_images_run_without_privileges(image):
    assert int(last(image, "USER")) > 0


def test_images_hold_what_was_installed_and_nothing_to_build_with(image):
    ((_, copied),) = [found for found in image if found[0] == "COPY"]
    source, *folders = copied.removeprefix("--from=").split()
    assert folders == ["/opt/innerloop", "/opt/innerloop"]
    assert "--without-pip /opt/innerloop" in " ".join(argument for _, argument in lineage(STAGES, source))
    assert not any(keyword == "RUN" and ("pip" in argument or "apt" in argument) for keyword, argument in image)


@pytest.mark.parametrize("name", [name for name in STAGES if name.startswith("packages-")])
def test_packages_are_those_that_were_tested(name):
    variables = environment(lineage(STAGES, name))
    assert variables["PIP_CONSTRAINT"] == variables["PIP_BUILD_CONSTRAINT"] == "/source/constraints.txt"


def test_only_the_cpu_image_takes_pytorch_from_the_cpu_index():
    def indexes(name):
        return [argument for _, argument in STAGES[name].instructions if "download.pytorch.org/whl/cpu" in argument]

    assert len(indexes("packages-cpu")) == 1
    assert not indexes("packages-cuda")


@pytest.mark.parametrize("name", ["packages-cpu", "packages-cuda", "packages-onnx"])
def test_packages_are_extras_that_exist_and_pytorch_only_where_it_computes(name):
    runs = [argument for keyword, argument in STAGES[name].instructions if keyword == "RUN"]
    extras = set(re.search(r"'\.\[(.*)\]'", runs[-1])[1].split(","))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert extras <= set(project["project"]["optional-dependencies"])
    assert any("torch" in run for run in runs) == ("server" in extras) == (name != "packages-onnx")


def test_the_server_accepts_its_environment(image, monkeypatch, tmp_path):
    variables = {name: value for name, value in environment(image).items() if name.startswith("INNERLOOP_")}
    assert variables.pop("INNERLOOP_MODELS") in last(image, "VOLUME")
    assert {name.removeprefix("INNERLOOP_").lower() for name in variables} <= set(ServerSettings.model_fields)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match="or say insecure"):
        load_settings({"models": tmp_path})
    settings = load_settings({"models": tmp_path, "insecure": True})
    assert settings.host == "0.0.0.0"
    assert last(image, "EXPOSE").split() == [str(settings.port), str(settings.metrics_port)]


def test_the_container_starts_the_server_and_stops_it_as_it_wants_to_be_stopped(image):
    entry, arguments = command(last(image, "ENTRYPOINT")), command(last(image, "CMD"))
    assert (entry, arguments) == (["innerloop"], ["serve"])
    assert "serve" in InnerloopCommands.sources
    assert last(image, "STOPSIGNAL") == "SIGTERM"


def test_the_health_check_exists(image):
    *_, option, module = command(last(image, "HEALTHCHECK"))
    assert option == "-m"
    assert find_spec(module)


def test_docker_gets_to_see_what_is_installed_and_little_else():
    everything, *exceptions = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
    ]
    allowed = {line.removeprefix("!").rstrip("/") for line in exceptions if line.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {
        "constraints.txt",
        "pyproject.toml",
        project["project"]["readme"],
        *project["project"]["license-files"],
        *(folder.rpartition("/")[0] for folder in wheel["packages"]),
        *(folder.partition("/")[0] for folder in wheel["force-include"]),
    }
    assert everything == "*"
    assert allowed == needed
    assert all((ROOT / path).exists() for path in allowed)
