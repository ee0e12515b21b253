"""Differentiable search."""

from dataclasses import dataclass, replace
from typing import Any

from innerloop_learner.settings import setting
from innerloop_learner.tasks import Params
from innerloop_trainer.config import TrainingConfig
from innerloop_trainer.outer_loop import defaults_of
from innerloop_trainer.outer_loop.estimators.darts import DartsSettings
from innerloop_trainer.search.searchers.mixture import LOGITS, most_probable
from innerloop_trainer.search.searchers.searcher import Searcher, SearchError, Wanted, searchers
from innerloop_trainer.search.spaces import Architecture


@dataclass(frozen=True)
class DartsSearchSettings(DartsSettings):
    """How the network of all architectures is trained, and DartsSettings."""

    supernet_iterations: int = setting(
        1000, "outer steps in which the network of all architectures is trained", least=1
    )


@searchers.register("darts")
class DartsSearch(Searcher):
    """Weighs all operations in one network (Liu, Simonyan and Yang 2019).

    That network is trained, and what it weighs most is proposed. The estimator `darts` says how, and what keeps it from
    collapsing onto skip connections. The first proposal is the most probable operation of each edge, the next ones are
    the next most probable combinations.

    Raises:
        ValueError: architectures of this space can't be mixed.
    """

    settings_class = DartsSearchSettings
    settings: DartsSearchSettings
    usual_trials = 1

    def __init__(self, wanted: Wanted, seed: int, settings: Any) -> None:
        super().__init__(wanted, seed, settings)
        if not wanted.space.one_cell:
            raise ValueError(
                "it mixes operations on the edges of a cell, and this space has other choices, such as widths; search "
                "it with evolution, reinforce or random"
            )
        self._ranked: list[Architecture] = []

    def supernet(self, config: TrainingConfig) -> TrainingConfig:
        """See Searcher.supernet; its batches have held-out tasks beside those of a trial."""
        settings = {name: value for name, value in vars(self.settings).items() if name != "supernet_iterations"}
        iterations = self.settings.supernet_iterations
        return replace(
            config,
            backbone="cell-mixture",
            estimator="darts",
            iterations=iterations,
            validate_every=iterations,
            meta_batch=2 * (config.meta_batch or defaults_of(config.method).meta_batch),
            settings={**config.settings, **settings},
        )

    def study(self, params: Params) -> None:
        """See Searcher.study."""
        ranked = most_probable(params[LOGITS].cpu(), self.wanted.space.size)
        self._ranked = [architecture for architecture in ranked if self.wanted.admits(architecture)]
        if not self._ranked:
            raise SearchError(self.wanted.refusal())

    def propose(self) -> Architecture:
        """See Searcher.propose; behind the last one comes the last one again."""
        return self._ranked.pop(0) if len(self._ranked) > 1 else self._ranked[0]
