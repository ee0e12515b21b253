"""constraints.txt pins everything that `make setup` installs."""

import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from distribution import installed
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def pins():
    """Requirement of each package that constraints.txt names."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    return {canonicalize_name(pin.name): pin for pin in map(Requirement, filter(None, lines))}


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_everything_that_setup_installs_is_pinned(pins, version):
    environment = {**default_environment(), "python_version": version, "python_full_version": f"{version}.0"}
    names = installed("innerloop", {"all", "dev"}, environment)
    assert {"torch", "pytest", "jinja2"} <= names  # jinja2 comes with torch
    assert names - {"innerloop"} <= set(pins)


def test_the_build_backend_is_pinned(pins):
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert {canonicalize_name(Requirement(text).name) for text in backend} <= set(pins)


def test_pins_are_exact(pins):
    assert all([specifier.operator for specifier in pin.specifier] == ["=="] for pin in pins.values())


def test_pins_are_what_pyproject_admits(pins):
    for requirement in map(Requirement, requires("innerloop")):
        pin = pins.get(canonicalize_name(requirement.name))
        if pin is not None:
            (version,) = (specifier.version for specifier in pin.specifier)
            assert requirement.specifier.contains(version), requirement
