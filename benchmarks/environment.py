"""The virtual environment of the peers that benchmarks compare with, apart from the project's."""

import json
import os
import subprocess
import venv
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / ".venv-peers"


def make_environment(requirements: Path) -> Path:
    """Its Python, after installing what is missing; a package that can't be installed is left out.

    Args:
        requirements: file with the packages of one benchmark, a line each with its version.
    """
    python = FOLDER / "bin" / "python"
    marker = FOLDER / f".complete-{requirements.parent.name}"
    required = requirements.read_text()
    if marker.is_file() and marker.read_text() == required:
        return python
    print(f"installing the peers into {FOLDER.name} ...", flush=True)
    venv.create(FOLDER, with_pip=True)
    if _install(python, "--requirement", str(requirements)):
        marker.write_text(required)
        return python
    for requirement in _listed(requirements):
        if not _install(python, requirement):
            print(f"{requirement} can't be installed", flush=True)
    return python


def versions(python: Path, requirements: Path) -> dict[str, str | None]:
    """The version of each required package there, None where it is missing."""
    names = [requirement.partition("==")[0].partition("[")[0] for requirement in _listed(requirements)]
    script = (
        "import importlib.metadata as m, json, sys\n"
        "found = {d.metadata['Name'].lower(): d.version for d in m.distributions()}\n"
        "print(json.dumps({name: found.get(name) for name in sys.argv[1:]}))"
    )
    found = subprocess.run([python, "-c", script, *names], check=True, capture_output=True, text=True)
    answer: dict[str, str | None] = json.loads(found.stdout)
    return answer


def _listed(requirements: Path) -> list[str]:
    return [line for line in requirements.read_text().splitlines() if line and not line.startswith("#")]


def _install(python: Path, *what: str) -> bool:
    # Constraints are the project's, and these packages are not.
    environment = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    return subprocess.run([python, "-m", "pip", "install", "--quiet", *what], env=environment).returncode == 0
