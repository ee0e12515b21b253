"""The versions of a model, the aliases that point to them, and which version a request means."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from innerloop_server.domain.errors import ModelNotFoundError
from innerloop_server.domain.models import ModelEntry, ModelState

STABLE = "stable"
"""The alias that a model's bare name stands for."""

CANARY = "canary"
"""The alias that takes a percentage of the requests for a model's bare name."""

SEPARATOR = "@"
"""Character between a model's name and a version or an alias."""

SHORTEST_DIGEST = 8
"""Least number of hexadecimal digits that name a version by its digest."""


@dataclass(frozen=True, slots=True)
class WantedAlias:
    """An alias as an operator asks for it.

    Attributes:
        version: folder of a version, or the beginning of its digest.
        percent: share of the requests for the bare name; other aliases than `canary` have none.
    """

    version: str
    percent: float = 0.0


@dataclass(frozen=True, slots=True)
class Alias:
    """A name for a version, which moves to another one as soon as that one is ready, and not before.

    Attributes:
        name: of the alias.
        version: label of the version that it points to; empty if there is none yet.
        wanted: version that it will point to once that one is ready; empty if it does already.
        percent: share of the requests for the bare name, for `canary`.
    """

    name: str
    version: str
    wanted: str = ""
    percent: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelVersions:
    """A model: its versions, whatever their state, and its aliases.

    Attributes:
        name: of the model.
        versions: at least one, oldest first.
        aliases: by name; `stable` is the newest version that is ready unless it stands here.
    """

    name: str
    versions: tuple[ModelEntry, ...]
    aliases: tuple[Alias, ...] = ()

    @property
    def stable(self) -> ModelEntry:
        """The version that a bare name stands for, apart from what a canary takes."""
        alias = self.alias(STABLE)
        if alias is not None:
            return self._pointed_to(alias)
        ready = [entry for entry in self.versions if entry.state is ModelState.READY]
        return (ready or self.versions)[-1]

    def alias(self, name: str) -> Alias | None:
        """The alias of that name, if somebody has set it."""
        return next((alias for alias in self.aliases if alias.name == name), None)

    def points_to(self, entry: ModelEntry) -> list[str]:
        """Names of the aliases that point to a version, `stable` included."""
        named = [alias.name for alias in self.aliases if alias.name != STABLE and alias.version == entry.label]
        return [STABLE, *named] if self.stable is entry else named

    def select(self, selector: str, account: str) -> ModelEntry:
        """The version that a request means.

        Args:
            selector: an alias, the folder of a version, or the beginning of its digest; empty for the bare name.
            account: who asks. Of the requests for the bare name, those of one account get one version.

        Raises:
            ModelNotFoundError: there is no such version.
        """
        if not selector:
            canary = self.alias(CANARY)
            if canary is not None and canary.version and takes_part(self.name, canary, account):
                return self._pointed_to(canary)
            return self.stable
        if selector == STABLE:
            return self.stable
        alias = self.alias(selector)
        found = self._pointed_to(alias) if alias is not None else find_version(self.versions, selector)
        if found is None:
            raise ModelNotFoundError(f"{self.name}{SEPARATOR}{selector}")
        return found

    def _pointed_to(self, alias: Alias) -> ModelEntry:
        found = find_version(self.versions, alias.version or alias.wanted)
        if found is None:
            why = f"its alias {alias.name} points to {alias.wanted}, and there is no such version"
            return ModelEntry(self.name, ModelState.FAILED, error=why)
        return found


def split_reference(reference: str) -> tuple[str, str]:
    """A model's name and what selects its version, empty for none.

    >>> split_reference("signs@2"), split_reference("signs")
    (('signs', '2'), ('signs', ''))
    """
    name, _, selector = reference.partition(SEPARATOR)
    return name, selector


def age(folder: str) -> list[str | int]:
    """Sorts versions by their folders as people would, the newest last: numbers count as numbers.

    >>> sorted(["v10", "v9", "v9-1"], key=age)
    ['v9', 'v9-1', 'v10']
    """
    return [int(part) if place % 2 else part for place, part in enumerate(re.split("([0-9]+)", folder))]


def find_version(versions: Sequence[ModelEntry], wanted: str) -> ModelEntry | None:
    """The version of that folder, or else the newest one whose digest begins like that."""
    if not wanted:
        return None
    by_folder = next((entry for entry in versions if entry.folder == wanted), None)
    if by_folder is not None or len(wanted) < SHORTEST_DIGEST:
        return by_folder
    return next((entry for entry in reversed(versions) if entry.digest.startswith(wanted)), None)


def settle(
    wanted: Mapping[str, WantedAlias], versions: Sequence[ModelEntry], before: Sequence[Alias]
) -> tuple[Alias, ...]:
    """Where aliases point: to what they shall, or, until that one is ready, to what they did before.

    Args:
        wanted: what the operator asks for, by name.
        versions: of the model.
        before: where the aliases pointed.
    """
    settled = []
    for name in sorted(wanted):
        asked, pointed = wanted[name], next((alias.version for alias in before if alias.name == name), "")
        target, kept = find_version(versions, asked.version), find_version(versions, pointed)
        if target is not None and target.state is ModelState.READY:
            settled.append(Alias(name, target.label, "", asked.percent))
        else:
            still = pointed if kept is not None and kept.state is ModelState.READY else ""
            settled.append(Alias(name, still, asked.version, asked.percent))
    return tuple(settled)


def takes_part(model: str, alias: Alias, account: str) -> bool:
    """Whether an account is in the share of an alias: always the same ones are.

    >>> alias = Alias("canary", "2", percent=25.0)
    >>> sum(takes_part("signs", alias, f"caller {number}") for number in range(1000))
    248
    """
    digest = blake2b(f"{model}\0{alias.name}\0{account}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) < alias.percent / 100 * 2**64
