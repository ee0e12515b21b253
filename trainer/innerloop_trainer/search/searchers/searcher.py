"""The interface of searchers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from innerloop_learner.registry import Registry
from innerloop_learner.settings import NoSettings, refusing, with_settings
from innerloop_learner.tasks import Params
from innerloop_trainer.config import TrainingConfig
from innerloop_trainer.search.spaces import Architecture, Space
from innerloop_trainer.seeds import generator_for

MOST_DRAWS = 500
"""Architectures that are drawn in search of one that is wanted, before the search gives up."""


class SearchError(ValueError):
    """A search can't be made as asked for; the message says what to change."""


@dataclass(frozen=True)
class Wanted:
    """The architectures among which to search.

    Attributes:
        space: space of architectures.
        admits: function that tells whether an architecture may be tried.
        refusal: function that gives the reason why none was admitted.
    """

    space: Space
    admits: Callable[[Architecture], bool] = lambda _: True
    refusal: Callable[[], str] = lambda: "no architecture of this space is wanted"

    def first(self, draw: Callable[[], Architecture]) -> Architecture:
        """The first architecture that `draw` gives and that is admitted.

        Raises:
            SearchError: none was among the first `MOST_DRAWS`.
        """
        for _ in range(MOST_DRAWS):
            architecture = draw()
            if self.admits(architecture):
                return architecture
        raise SearchError(self.refusal())


class Searcher(ABC):
    """Says what architecture to try next, and learns from what it led to.

    A searcher is a function of its arguments and of what it was told: whoever makes it again with the same ones, and
    tells it the same scores in the same order, gets the same proposals. So a search goes on from its log alone.

    Args:
        wanted: architectures to search among.
        seed: seed of all randomness.
        settings: an instance of `settings_class`, checked already.

    Attributes:
        usual_trials: number of architectures to train unless the user says otherwise.

    Raises:
        ValueError: the searcher can't search this space.
    """

    settings_class: ClassVar[type[Any]] = NoSettings
    """A frozen dataclass of the searcher's settings, each declared by `settings.setting`."""

    usual_trials: ClassVar[int] = 50

    def __init__(self, wanted: Wanted, seed: int, settings: Any) -> None:
        self.wanted, self.seed, self.settings = wanted, seed, settings
        self._proposed = 0

    @property
    def least_trials(self) -> int:
        """Fewest trials in which the searcher can make use of what it was told."""
        return 1

    @abstractmethod
    def propose(self) -> Architecture:
        """The architecture to try next; it may be one that was tried before, whose score is then known already."""

    def learn(self, architecture: Architecture, score: float) -> None:  # noqa: B027 - some learn nothing
        """Take note of the score of what was proposed last; more is better."""

    def supernet(self, config: TrainingConfig) -> TrainingConfig | None:
        """The configuration of a run to train before anything is proposed, from that of a trial; None for no run."""
        del config
        return None

    def study(self, params: Params) -> None:  # noqa: B027 - most have nothing to study
        """Take note of the parameters that training the run of `supernet` ended with."""

    def _generator(self) -> torch.Generator:
        """A generator for the next proposal."""
        self._proposed += 1
        return generator_for(self.seed, "search", self._proposed)


searchers: Registry[type[Searcher]] = Registry("searcher", "innerloop.searchers", "innerloop_trainer.search.searchers")


def build_searcher(name: str, wanted: Wanted, seed: int, settings: Mapping[str, Any]) -> Searcher:
    """Build the searcher that is registered under a name.

    Raises:
        UnknownNameError: no searcher has this name.
        SettingsError: the searcher does not take these settings, or can't search this space.
    """
    kind, owner = searchers[name], f"searcher {name}"
    with refusing(owner):
        return kind(wanted, seed, with_settings(owner, kind.settings_class, settings))
