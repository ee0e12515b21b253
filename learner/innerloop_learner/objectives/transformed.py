"""An outer loss under a random transformation of features."""

import torch

from innerloop_learner.objectives.objective import Objective, Outcome, Stage, averaged, refitted
from innerloop_learner.parts import current_part
from innerloop_learner.tasks import Episodes, Params
from innerloop_learner.transformations import Transformation


class Transformed(Objective):
    """An outer loss of a learner whose features are transformed at random, for each task anew.

    Running statistics are those of features as they are, since serving knows no others.

    Args:
        plain: the outer loss.
        transformation: the transformation.
    """

    def __init__(self, plain: Objective, transformation: Transformation) -> None:
        super().__init__(plain.learner, plain.settings)
        self._plain, self._transformation = plain, transformation
        self.least_queries, self.needs_classes = plain.least_queries, plain.needs_classes

    @property
    def plain(self) -> Objective:
        """See Objective.plain."""
        return self._plain

    def init(self, generator: torch.Generator) -> Params:
        """See Objective.init: the parameters of the outer loss, and the strengths."""
        return {**self._plain.init(generator), **self._transformation.init()}

    def strengths(self) -> frozenset[str]:
        """See Objective.strengths."""
        return frozenset(self._transformation.init())

    def __call__(self, params: Params, episodes: Episodes, stage: Stage) -> Outcome:
        """See Objective.__call__."""
        generator, part = stage.generator("transformation"), current_part()
        changed = self._transformation.transformed(params, part.total(episodes.support.tasks), generator)
        own = {name: part.own(value) for name, value in changed.items()}
        outcome = self._plain({**params, **own}, episodes, stage)
        with torch.no_grad():
            fresh = refitted(self.learner, params, episodes.support)
        return outcome._replace(buffers=averaged(params, fresh))
