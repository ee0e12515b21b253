"""Ageing evolution."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from innerloop_learner.settings import setting
from innerloop_trainer.search.searchers.searcher import Searcher, Wanted, searchers
from innerloop_trainer.search.spaces import Architecture, Choice
from innerloop_trainer.search.spaces.space import draw_below


@dataclass(frozen=True)
class EvolutionSettings:
    """How a population evolves.

    Raises:
        ValueError: more candidates than there are in the population.
    """

    members: int = setting(10, "architectures that are alive; as many random ones are tried first", least=2)
    candidates: int = setting(3, "architectures of which the best one becomes the parent", least=1)

    def __post_init__(self) -> None:
        if self.candidates > self.members:
            raise ValueError(f"candidates must be at most the members, {self.members}, not {self.candidates}")


@searchers.register("evolution")
class Evolution(Searcher):
    """Changes good architectures, and lets old ones die (Real, Aggarwal, Huang and Le 2019).

    This is ageing evolution, algorithm 1 of the paper. A population is a queue. Of some members drawn from it, with
    replacement, the best one is the parent; its child, in which one choice is another, joins the population, and the
    oldest member leaves it, however good it is. So an architecture that was lucky once does not stay for ever.
    """

    settings_class = EvolutionSettings
    settings: EvolutionSettings

    def __init__(self, wanted: Wanted, seed: int, settings: Any) -> None:
        super().__init__(wanted, seed, settings)
        self._alive: deque[tuple[float, Architecture]] = deque(maxlen=self.settings.members)

    @property
    def least_trials(self) -> int:
        """See Searcher.least_trials: the first generation is random."""
        return self.settings.members + 1

    def propose(self) -> Architecture:
        """See Searcher.propose."""
        generator, space = self._generator(), self.wanted.space
        if len(self._alive) < self.settings.members:
            return self.wanted.first(lambda: space.draw(generator))
        drawn = [self._alive[draw_below(len(self._alive), generator)] for _ in range(self.settings.candidates)]
        _, parent = max(drawn)
        return self.wanted.first(lambda: mutated(parent, space.choices, generator))

    def learn(self, architecture: Architecture, score: float) -> None:
        """See Searcher.learn."""
        self._alive.append((score, architecture))


def mutated(parent: Architecture, choices: Sequence[Choice], generator: torch.Generator) -> Architecture:
    """An architecture that differs from its parent in one choice, each other option as probable as another."""
    place = draw_below(len(choices), generator)
    step = 1 + draw_below(len(choices[place].options) - 1, generator)
    other = (parent[place] + step) % len(choices[place].options)
    return (*parent[:place], other, *parent[place + 1 :])
