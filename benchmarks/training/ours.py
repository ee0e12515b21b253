"""Our side: the outer loop that `innerloop train` runs, without its data, logs and checkpoints.

`--replay` has a GPU replay outer steps as CUDA graphs, which `innerloop train` does by itself.
"""

import sys

import torch
from side import Side, serve
from workload import OUTER_RATE, RATE, WAYS, Batch, Weights, Workload

from innerloop_learner import InputSpec, LearnerSpec, Query, Support, build_learner
from innerloop_learner.acceleration import accelerated
from innerloop_learner.objectives import Stage, build_objective
from innerloop_learner.precision import tf32_allowed
from innerloop_learner.tasks import Episodes
from innerloop_trainer.outer_loop import OptimizerPlan, OuterLoop, build_estimator
from innerloop_trainer.parallel import ThreadsOrWorkers

MANY = 10**9


class Innerloop(Side):
    """MAML on Conv4 as it is by default; with several processes, these divide the tasks and have a thread each."""

    replay = False

    def __init__(self, workload: Workload, threads: int, processes: int) -> None:
        torch.set_num_threads(threads)
        self._device = torch.device(workload.device)
        settings = {"rate": RATE, "steps": workload.steps}
        spec = LearnerSpec("maml", InputSpec(workload.image), max_ways=WAYS, backbone="conv4", settings=settings)
        self._estimator = build_estimator(
            "backpropagation", build_objective(accelerated(build_learner(spec), self._device)), {}
        )
        if processes > 1:
            self._estimator = ThreadsOrWorkers(self._estimator, workload.tasks, MANY, processes)

    def restart(self, weights: Weights) -> None:
        """See Side.restart."""
        params = {name: torch.from_numpy(value).to(self._device) for name, value in weights.items()}
        plan = OptimizerPlan(MANY, OUTER_RATE, float("inf"), "constant")
        self._loop, self._done = OuterLoop(self._estimator, params, plan, seed=0, replay=self.replay), 0

    def step(self, batch: Batch) -> float:
        """See Side.step."""
        with tf32_allowed(True):
            estimate = self._loop.step(_episodes(batch).to(self._device), self._done)
        self._done += 1
        return estimate.loss.item()

    def gradient(self, batch: Batch) -> tuple[float, Weights]:
        """See Side.gradient."""
        with tf32_allowed(False):
            estimate = self._estimator.estimate(self._loop.params, {}, _episodes(batch).to(self._device), Stage())
        return estimate.loss.item(), {name: value.cpu().numpy() for name, value in estimate.gradients.items()}

    def weights(self) -> Weights:
        """See Side.weights."""
        return {name: value.cpu().numpy() for name, value in self._loop.params.items()}

    def device_bytes(self) -> int:
        """See Side.device_bytes."""
        return torch.cuda.max_memory_reserved() if self._device.type == "cuda" else 0


def _episodes(batch: Batch) -> Episodes:
    support, support_labels, query, query_labels = map(torch.from_numpy, batch)
    tasks = len(support)
    everyone = torch.ones(support_labels.shape, dtype=torch.bool)
    return Episodes(
        Support(support, support_labels, everyone, torch.full((tasks,), WAYS), WAYS),
        Query(query, torch.ones(query_labels.shape, dtype=torch.bool)),
        query_labels,
    )


class Replaying(Innerloop):
    """The same, whose steps a GPU replays."""

    replay = True


if __name__ == "__main__":
    replay = "--replay" in sys.argv
    if replay:
        sys.argv.remove("--replay")
    serve(Replaying if replay else Innerloop)
