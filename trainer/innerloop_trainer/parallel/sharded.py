"""An estimator whose batch of tasks is divided among processes."""

from collections.abc import Mapping

from innerloop_learner.objectives import Stage
from innerloop_learner.parts import computing
from innerloop_learner.tasks import Episodes, Params
from innerloop_trainer.config import ConfigError
from innerloop_trainer.outer_loop import Estimate, Estimator, estimators
from innerloop_trainer.parallel.group import Group
from innerloop_trainer.parallel.shard import Shard


class Sharded(Estimator):
    """Gives the estimate of another estimator, of which every process computes a part of the tasks.

    Every process gets the same arguments, and the same estimate up to nothing: what is added up is equal to the bit.

    Args:
        estimator: the estimator.
        group: processes that compute together.
    """

    in_parts = True

    def __init__(self, estimator: Estimator, group: Group) -> None:
        super().__init__(estimator.objective, estimator.settings)
        self._estimator, self._group = estimator, group

    def start(self, params: Params) -> Params:
        """See Estimator.start."""
        return self._estimator.start(params)

    def rates(self) -> Mapping[str, float]:
        """See Estimator.rates."""
        return self._estimator.rates()

    def estimate_ahead(self, params: Params, episodes: Episodes, stage: Stage) -> Params:
        """See Estimator.estimate_ahead."""
        shard = Shard(self._group, episodes.support.tasks)
        with computing(shard):
            found = self._estimator.estimate_ahead(params, episodes.of_tasks(shard.rows), stage)
            return shard.averaged(found)

    def estimate(self, params: Params, carried: Params, episodes: Episodes, stage: Stage) -> Estimate:
        """See Estimator.estimate."""
        shard = Shard(self._group, episodes.support.tasks)
        return estimate_part(self._estimator, shard, params, carried, episodes.of_tasks(shard.rows), stage)


def estimate_part(
    estimator: Estimator, shard: Shard, params: Params, carried: Params, own: Episodes, stage: Stage
) -> Estimate:
    """The estimate of a batch, of which this process has a part.

    Args:
        estimator: the estimator.
        shard: the part of this process.
        params: see Estimator.estimate, as are `carried` and `stage`, which are the same in all processes.
        carried: tensors of the call before.
        own: tasks of this part.
        stage: stage of meta-training.
    """
    with computing(shard):
        found = estimator.estimate(params, carried, own, stage)
    return shard.whole(found)


def check_in_parts(estimator: Estimator, meta_batch: int, processes: int) -> None:
    """Check that so many processes can divide the tasks of an outer step.

    Raises:
        ConfigError: they can't.
    """
    if not estimator.in_parts:
        name = next((name for name in estimators if estimators[name] is type(estimator)), type(estimator).__name__)
        raise ConfigError(
            f"the estimator {name} computes all tasks of an outer step in one process here; train with one process, or "
            "choose another --estimator"
        )
    if processes > meta_batch:
        raise ConfigError(
            f"{processes} processes can't divide the tasks of an outer step, of which there are {meta_batch}; raise "
            f"--meta-batch to {processes} or more, or take fewer processes"
        )
