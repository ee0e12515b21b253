"""Wheel and sdist: what is inside, and that what they install works."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest
from imports import FOLDERS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of a wheel that was made from an sdist, and of that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    constraints = str(ROOT / "constraints.txt")
    environment = {**os.environ, "PIP_CONSTRAINT": constraints, "PIP_BUILD_CONSTRAINT": constraints}
    command = [sys.executable, "-m", "build", "--outdir", folder, ROOT]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def contents(wheel):
    """Bytes of the wheel's files by path."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_wheel_holds_the_packages_their_types_the_contract_and_the_license(contents):
    packages = {name.partition("/")[0] for name in contents if ".dist-info/" not in name}
    assert packages == set(FOLDERS)
    assert {f"{package}/py.typed" for package in FOLDERS} <= set(contents)
    protos = {path.name for path in (ROOT / "proto" / "innerloop" / "v1").glob("*.proto")}
    assert {f"innerloop/v1/{name}" for name in protos} <= set(contents)
    (license_file,) = [name for name in contents if name.endswith(".dist-info/licenses/LICENSE")]
    assert contents[license_file] == (ROOT / "LICENSE").read_bytes()


def test_a_wheel_holds_the_models_that_come_along(contents):
    files = [path for path in (ROOT / "models").rglob("*") if path.is_file()]
    assert {"manifest.json", "parameters.safetensors", "README.md"} <= {path.name for path in files}
    for path in files:
        assert contents[f"innerloop_learner/models/{path.relative_to(ROOT / 'models').as_posix()}"] == path.read_bytes()


def test_a_wheel_says_who_made_it_and_how_it_may_be_used(contents):
    (metadata,) = [content for name, content in contents.items() if name.endswith(".dist-info/METADATA")]
    headers = HeaderParser().parsestr(metadata.decode())
    assert headers["License-Expression"] == "Apache-2.0"
    assert headers["Author"] == "The Innerloop authors"
    assert "Typing :: Typed" in headers.get_all("Classifier", [])


def test_an_sdist_holds_what_building_and_changing_need(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "pyproject.toml", "constraints.txt"} <= names
    assert not [name for name in names if name.endswith(".pyc")]


def test_the_base_install_has_a_command_without_pytorch_that_says_what_is_missing(wheel, tmp_path):
    venv.create(tmp_path / "environment", with_pip=True)
    bin_folder = tmp_path / "environment" / "bin"
    environment = {**os.environ, "PIP_CONSTRAINT": str(ROOT / "constraints.txt")}
    environment.pop("PYTHONPATH", None)
    install = [bin_folder / "python", "-m", "pip", "install", "--quiet", wheel]
    subprocess.run(install, env=environment, check=True)

    def innerloop(*arguments):
        command = [bin_folder / "innerloop", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    listed = subprocess.run([bin_folder / "python", "-m", "pip", "list"], capture_output=True, text=True, check=True)
    assert "torch" not in listed.stdout
    shown = innerloop("--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "adapt" in shown.stdout
    refused = innerloop("train", "maml", "--data", "digits")
    assert refused.returncode != 0
    assert "innerloop[trainer]" in refused.stderr
