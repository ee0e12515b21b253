"""What installing Innerloop brings along, as the installed packages' metadata tell."""

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, requires

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def installed(name: str, extras: Iterable[str] = (), environment: Mapping[str, str] | None = None) -> set[str]:
    """Names of all packages that installing one brings along, itself included.

    Args:
        name: of the package.
        extras: of it that are asked for.
        environment: markers are evaluated in this one; in the running interpreter's if not given.
    """
    environment = default_environment() if environment is None else environment
    found: dict[str, frozenset[str]] = {}
    waiting = [(name, frozenset(extras))]
    while waiting:
        name, wanted = waiting.pop()
        if name in found and wanted <= found[name]:
            continue
        found[name] = found.get(name, frozenset()) | wanted
        for requirement in map(Requirement, _requirements(name)):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({**environment, "extra": extra}) for extra in {"", *wanted}):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return set(found)


def _requirements(name: str) -> list[str]:
    """What a package requires; nothing is known of one that only other versions of Python need."""
    try:
        return requires(name) or []
    except PackageNotFoundError:
        return []
