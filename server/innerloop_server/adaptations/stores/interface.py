"""Interface of every store of adaptations."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple


class StoreUnusableError(ValueError):
    """A store that can't be used as it is set up; the message says why and what to do."""


class Part(StrEnum):
    """A part of an adaptation in a store."""

    RECORD = "record"
    STATE = "state"
    RECIPE = "recipe"


class DamagedError(ValueError):
    """The record of an adaptation is damaged."""

    def __init__(self, part: Part) -> None:
        super().__init__(f"the {part} is damaged")
        self.part = part


class Summary(NamedTuple):
    """Record of an adaptation in a store, without state and recipe.

    Attributes:
        id: of the adaptation.
        owner: whose it is.
        model: name of its model.
        revision: of its content.
        created_ns: when it was made.
        expires_ns: when it may be dropped.
        request_id: of the request that made it; empty for none.
        record: the sealed record.
    """

    id: str
    owner: str
    model: str
    revision: int
    created_ns: int
    expires_ns: int
    request_id: str
    record: bytes


class StoredAdaptation(NamedTuple):
    """All that a store keeps of an adaptation.

    Attributes:
        summary: what can be listed.
        state: the sealed task state; empty where the recipe makes it again.
        recipe: the sealed recipe; empty where none may be kept.
    """

    summary: Summary
    state: bytes
    recipe: bytes

    @property
    def size_bytes(self) -> int:
        """Bytes of its three parts."""
        return len(self.summary.record) + len(self.state) + len(self.recipe)


class Totals(NamedTuple):
    """How much a store keeps: adaptations, and bytes of their parts."""

    records: int
    size_bytes: int


class AdaptationStore(ABC):
    """Adaptations by id, as sealed bytes that a store does not read.

    All functions run on the event loop and may be called side by side. They raise StoreUnavailableError when the store
    can't be reached or has no room; whether the call took effect is not known then. Reads may raise DamagedError when
    the store itself finds what it kept of one adaptation unreadable.

    Attributes:
        durable: whether it keeps task states and recipes, so that what gives way in memory comes back from it.
        shared: whether other servers may change what it keeps.
    """

    durable: bool
    shared: bool

    @abstractmethod
    async def open(self) -> None:
        """Get ready.

        Raises:
            StoreUnusableError: it can't be used at all.
        """

    @abstractmethod
    async def close(self) -> None:
        """Write what waits to be written, and let go of everything."""

    def admit(self) -> None:  # noqa: B027 - most stores find out when they write
        """Refuse, with StoreUnavailableError, what would have to be written, when it is known that it can't be."""

    def brings_back(self, adaptation_id: str) -> bool:
        """Whether this adaptation's task state comes back from it."""
        del adaptation_id
        return self.durable

    @abstractmethod
    async def add(self, adaptation: StoredAdaptation, most: int | None = None) -> Summary | None:
        """Keep a new adaptation.

        Args:
            adaptation: that is kept.
            most: adaptations that its owner may have, this one included; None for any number. Those that have expired
                count until `expire` forgets them.

        Returns:
            None; or, with nothing kept, the adaptation that the same request of the same owner has made before and
            that had not expired when this one was made.

        Raises:
            TooManyAdaptationsError: its owner has as many already.
        """

    @abstractmethod
    async def count(self, owner: str) -> int:
        """How many adaptations an owner has; those that have expired count until `expire` forgets them."""

    @abstractmethod
    async def replace(self, adaptation: StoredAdaptation) -> bool:
        """Put a new revision in the place of the one before it; false if that is not what is kept now.

        The later one of both expiries is kept.
        """

    @abstractmethod
    async def delete(self, adaptation_id: str) -> bool:
        """Forget an adaptation; false if it was not there."""

    @abstractmethod
    async def get(self, adaptation_id: str) -> StoredAdaptation | None:
        """An adaptation with all its parts."""

    @abstractmethod
    async def look(self, adaptation_id: str) -> Summary | None:
        """An adaptation without state and recipe."""

    @abstractmethod
    async def revision(self, adaptation_id: str) -> int | None:
        """The revision that is kept now; None if there is none."""

    @abstractmethod
    async def made_by(self, owner: str, request_id: str) -> Summary | None:
        """The adaptation that a request made."""

    @abstractmethod
    async def list(self, owner: str, model: str, before_ns: int | None, after_ns: int, limit: int) -> Sequence[Summary]:
        """The owner's adaptations, newest first.

        Args:
            owner: whose.
            model: only those of this model, unless empty.
            before_ns: only those created before.
            after_ns: only those that expire after.
            limit: at most this many.
        """

    @abstractmethod
    async def scan(self, model: str, cursor: str, limit: int) -> tuple[Sequence[Summary], str]:
        """Some adaptations of a model, whoever's they are.

        All that are kept from the first call to the last are among those returned; one may be twice.

        Args:
            model: its name.
            cursor: what the last call returned; empty at first.
            limit: about so many.

        Returns:
            the adaptations, and the cursor of those that follow; it is empty when there are no more.
        """

    @abstractmethod
    async def touch(self, expiries: Mapping[str, int]) -> None:
        """Put off expiries, by id; never to an earlier time than is kept. Ids that are gone are left out."""

    @abstractmethod
    async def expire(self, now_ns: int, limit: int) -> Sequence[Summary]:
        """Forget adaptations that have expired, at most so many; these are returned."""

    @abstractmethod
    async def totals(self) -> Totals:
        """How much is kept; takes no longer for more."""
