"""Chooses between threads inside operations and worker processes, by what is faster."""

import time
from collections.abc import Mapping
from statistics import median
from typing import Literal

import torch

from innerloop_learner.objectives import Stage
from innerloop_learner.tasks import Episodes, Params
from innerloop_trainer.outer_loop import Estimate, Estimator
from innerloop_trainer.parallel.group import ProcessError
from innerloop_trainer.parallel.sharded import check_in_parts
from innerloop_trainer.parallel.workers import Workers

TIMED = 3
"""Outer steps of each way that are timed and whose median counts. The first of each does not: it sets things up."""

WORTH_SECONDS = 60.0
"""Shortest training that workers are tried for: their start takes several seconds of all processors."""

GAIN = 1.05
"""How much faster workers must be: as much as timings of the same thing differ by."""

Way = Literal["threads", "workers"]


class ThreadsOrWorkers(Estimator):
    """Gives the estimate of another estimator, by threads of this process or by worker processes of one thread each.

    Which is faster depends on the learner, its images and the machine. So a few outer steps are timed by each way, in
    turns, while training goes on: all of them count, and both give the same estimate up to rounding. If a worker ends,
    its step is computed again by this process, which goes on alone.

    Args:
        estimator: the estimator.
        meta_batch: tasks per outer step.
        iterations: outer steps of the run.
        workers: number of processes, this one among them; None to choose by time between this one with all threads, and
            as many processes as it has threads.

    Raises:
        ConfigError: so many processes can't divide the tasks.
    """

    def __init__(self, estimator: Estimator, meta_batch: int, iterations: int, workers: int | None) -> None:
        super().__init__(estimator.objective, estimator.settings)
        self._estimator, self._iterations = estimator, iterations
        self._threads = torch.get_num_threads()
        self._size = min(self._threads, meta_batch) if workers is None else workers
        self._workers: Workers | None = None
        self._notice: str | None = None
        self._seconds: dict[Way, list[float]] = {"threads": [], "workers": []}
        self._chosen: Way | None = None
        if workers is not None:
            check_in_parts(estimator, meta_batch, workers)
            self._chosen = "workers"
        elif not estimator.in_parts or self._size < 2:
            self._chosen = "threads"

    def start(self, params: Params) -> Params:
        """See Estimator.start."""
        return self._estimator.start(params)

    def rates(self) -> Mapping[str, float]:
        """See Estimator.rates."""
        return self._estimator.rates()

    def estimate_ahead(self, params: Params, episodes: Episodes, stage: Stage) -> Params:
        """See Estimator.estimate_ahead."""
        return self._estimator.estimate_ahead(params, episodes, stage)

    def estimate(self, params: Params, carried: Params, episodes: Episodes, stage: Stage) -> Estimate:
        """See Estimator.estimate."""
        way, began = self._chosen or self._next_way(), time.perf_counter()
        found = None
        if way == "workers":
            try:
                found = self._started().estimate(params, carried, episodes, stage)
            except ProcessError as error:
                self._settle("threads", f"{error}; this process goes on alone")
        if found is None:
            found = self._estimator.estimate(params, carried, episodes, stage)
        if self._chosen is None:
            self._seconds[way].append(time.perf_counter() - began)
            self._compare(episodes.support.tasks, stage)
        return found

    def take_notice(self) -> str | None:
        """What the user should know, once: what was chosen, or that a worker has ended."""
        notice, self._notice = self._notice, None
        return notice

    def close(self) -> None:
        """End the workers, if there are any."""
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def _started(self) -> Workers:
        if self._workers is None:
            self._workers = Workers(self._estimator, self._size)
        return self._workers

    def _next_way(self) -> Way:
        """The way whose turn it is while they are compared; threads until the workers have started."""
        if self._workers is None or not self._workers.ready:
            return "threads"
        if not self._seconds["workers"]:
            self._seconds["threads"].clear()  # timed beside workers that were starting
            return "workers"
        return "threads" if len(self._seconds["threads"]) < len(self._seconds["workers"]) else "workers"

    def _compare(self, tasks: int, stage: Stage) -> None:
        """Start workers if they may be worth it, and choose when enough is known."""
        seconds = {way: median(each[1:]) for way, each in self._seconds.items() if len(each) > 1}
        if self._workers is None:
            if not seconds:
                return
            if seconds["threads"] * self._iterations * (1 - stage.progress) < WORTH_SECONDS:
                self._chosen = "threads"
                return
            try:
                self._started()
            except ProcessError as error:
                self._settle("threads", str(error))
        elif all(len(each) > TIMED for each in self._seconds.values()):
            faster: Way = "workers" if seconds["workers"] * GAIN < seconds["threads"] else "threads"
            speeds = {way: f"{tasks / each:.3g} tasks/s" for way, each in seconds.items()}
            self._settle(
                faster,
                f"{self._size} worker processes of one thread: {speeds['workers']}; {self._threads} threads: "
                f"{speeds['threads']}; goes on with {faster}",
            )

    def _settle(self, way: Way, notice: str) -> None:
        self._chosen, self._notice = way, notice
        if way == "threads":
            self.close()
