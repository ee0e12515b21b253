"""The peers' own virtual environment."""

import json
import os
import subprocess
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
FOLDER = Path(__file__).resolve().parent.parent.parent / ".venv-peers"
MARKER = FOLDER / ".complete"


def make_environment() -> Path:
    """Its Python, after installing what is missing; a package that can't be installed is left out."""
    python = FOLDER / "bin" / "python"
    required = REQUIREMENTS.read_text()
    if MARKER.is_file() and MARKER.read_text() == required:
        return python
    print(f"installing the peers into {FOLDER.name} ...", flush=True)
    venv.create(FOLDER, with_pip=True)
    if _install(python, "--requirement", str(REQUIREMENTS)):
        MARKER.write_text(required)
        return python
    for requirement in _requirements():
        if not _install(python, requirement):
            print(f"{requirement} can't be installed", flush=True)
    return python


def versions(python: Path) -> dict[str, str | None]:
    """The version of each required package there, None where it is missing."""
    names = [requirement.partition("==")[0].partition("[")[0] for requirement in _requirements()]
    script = (
        "import importlib.metadata as m, json, sys\n"
        "found = {d.metadata['Name'].lower(): d.version for d in m.distributions()}\n"
        "print(json.dumps({name: found.get(name) for name in sys.argv[1:]}))"
    )
    found = subprocess.run([python, "-c", script, *names], check=True, capture_output=True, text=True)
    answer: dict[str, str | None] = json.loads(found.stdout)
    return answer


def _requirements() -> list[str]:
    return [line for line in REQUIREMENTS.read_text().splitlines() if line and not line.startswith("#")]


def _install(python: Path, *what: str) -> bool:
    # Constraints are the project's, and these packages are not.
    environment = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    return subprocess.run([python, "-m", "pip", "install", "--quiet", *what], env=environment).returncode == 0
