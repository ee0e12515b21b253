"""Our side: the outer loop that `innerloop train` runs, without its data, logs and checkpoints."""

import torch
from side import Side, serve
from workload import OUTER_RATE, RATE, WAYS, Batch, Weights, Workload

from innerloop_learner import InputSpec, LearnerSpec, Query, Support, build_learner
from innerloop_learner.acceleration import accelerated
from innerloop_learner.objectives import Stage, build_objective
from innerloop_learner.tasks import Episodes
from innerloop_trainer.outer_loop import OptimizerPlan, OuterLoop, build_estimator
from innerloop_trainer.parallel import ThreadsOrWorkers

MANY = 10**9


class Innerloop(Side):
    """MAML on Conv4 as it is by default; with several processes, these divide the tasks and have a thread each."""

    def __init__(self, workload: Workload, threads: int, processes: int) -> None:
        torch.set_num_threads(threads)
        settings = {"rate": RATE, "steps": workload.steps}
        spec = LearnerSpec("maml", InputSpec(workload.image), max_ways=WAYS, backbone="conv4", settings=settings)
        self._estimator = build_estimator(
            "backpropagation", build_objective(accelerated(build_learner(spec), "cpu")), {}
        )
        if processes > 1:
            self._estimator = ThreadsOrWorkers(self._estimator, workload.tasks, MANY, processes)

    def restart(self, weights: Weights) -> None:
        """See Side.restart."""
        params = {name: torch.from_numpy(value) for name, value in weights.items()}
        plan = OptimizerPlan(MANY, OUTER_RATE, float("inf"), "constant")
        self._loop, self._done = OuterLoop(self._estimator, params, plan, seed=0), 0

    def step(self, batch: Batch) -> float:
        """See Side.step."""
        estimate = self._loop.step(_episodes(batch), self._done)
        self._done += 1
        return estimate.loss.item()

    def gradient(self, batch: Batch) -> tuple[float, Weights]:
        """See Side.gradient."""
        estimate = self._estimator.estimate(self._loop.params, {}, _episodes(batch), Stage())
        return estimate.loss.item(), {name: value.numpy() for name, value in estimate.gradients.items()}

    def weights(self) -> Weights:
        """See Side.weights."""
        return {name: value.numpy() for name, value in self._loop.params.items()}


def _episodes(batch: Batch) -> Episodes:
    support, support_labels, query, query_labels = map(torch.from_numpy, batch)
    tasks = len(support)
    everyone = torch.ones(support_labels.shape, dtype=torch.bool)
    return Episodes(
        Support(support, support_labels, everyone, torch.full((tasks,), WAYS), WAYS),
        Query(query, torch.ones(query_labels.shape, dtype=torch.bool)),
        query_labels,
    )


if __name__ == "__main__":
    serve(Innerloop)
