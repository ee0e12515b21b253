"""Meta-training: the loop around the outer loop."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from innerloop_learner.bundle import save_bundle
from innerloop_trainer.config import TrainingPlan
from innerloop_trainer.data import DataSource
from innerloop_trainer.evaluation import Evaluation, evaluate, score
from innerloop_trainer.manifest import make_manifest
from innerloop_trainer.meta_gradient import Backpropagation
from innerloop_trainer.outer_loop import OuterLoop
from innerloop_trainer.plots import plot_learning_curve
from innerloop_trainer.run_folder import Progress, RunError, RunFolder
from innerloop_trainer.run_log import Row, RunLog, read_rows
from innerloop_trainer.seeds import generator_for


@dataclass(frozen=True)
class Report:
    """Where a run stands, for progress bars.

    Attributes:
        progress: how far it has come.
        tasks_per_second: since the last validation.
        loss: running mean of the outer loss.
        validation: of the last validation; None before the first.
    """

    progress: Progress
    tasks_per_second: float
    loss: float
    validation: float | None


class Training:
    """One run: trains, validates, keeps the best, and can be stopped and resumed at any outer step.

    Args:
        plan: what to train and how.
        source: of the episodes, on the training device.
        folder: for checkpoints and logs.
        device: to train on.
        resume: continue the run that the folder holds.

    Raises:
        RunError: the folder holds a run that was not to be resumed, none that could be, or one of other settings.
    """

    def __init__(
        self, plan: TrainingPlan, source: DataSource, folder: RunFolder, device: torch.device, *, resume: bool = False
    ) -> None:
        self._plan, self._source, self._folder, self._device = plan, source, folder, device
        self._sign = 1 if source.task_kind == "classification" else -1
        initial = plan.learner.init(generator_for(plan.config.seed, "initialisation"))
        self._loop = OuterLoop(
            plan.learner,
            {name: value.to(device) for name, value in initial.items()},
            Backpropagation(),
            plan.iterations,
            plan.learning_rate,
            plan.gradient_clip,
        )
        self.progress = Progress()
        if resume:
            if folder.load_config() != plan.config:
                raise RunError(f"{folder.path} holds a run with other settings; resume with those, or name another")
            state, self.progress = folder.load_latest(device)
            self._loop.restore(state)
        elif folder.exists:
            raise RunError(f"{folder.path} holds a run already; continue it with --resume, or name another folder")

    def run(self, report: Callable[[Report], None], interrupted: Callable[[], bool]) -> bool:
        """Train to the end or until interrupted; either way everything is saved.

        Args:
            report: called after every outer step.
            interrupted: asked after every outer step.

        Returns:
            whether the run is finished.
        """
        self._folder.save_config(self._plan.config)
        log = RunLog(self._folder, self.progress.iteration)
        window = _Window()
        validation = None
        try:
            while self.progress.iteration < self._plan.iterations:
                self._step(window)
                if self._validation_due:
                    row = self._validate(window)
                    log.write(row)
                    validation, window = row.validation, _Window()
                report(Report(self.progress, window.tasks_per_second, window.mean_loss, validation))
                if interrupted():
                    break
        finally:
            self._folder.save_latest(self._loop.state(), self.progress)
            log.close()
            self._draw()
        return self.progress.iteration == self._plan.iterations

    def _step(self, window: "_Window") -> None:
        plan, start = self._plan, time.perf_counter()
        generator = generator_for(plan.config.seed, "training", self.progress.iteration, self._device)
        episodes = self._source.train.sample(plan.episodes, plan.meta_batch, generator)
        estimate = self._loop.step(episodes, self.progress.iteration)
        window.add(estimate.loss, score(estimate.outputs, episodes).mean(), plan.meta_batch)
        seconds = time.perf_counter() - start
        window.seconds += seconds
        self.progress = replace(
            self.progress, iteration=self.progress.iteration + 1, seconds=self.progress.seconds + seconds
        )

    @property
    def _validation_due(self) -> bool:
        iteration = self.progress.iteration
        return iteration % self._plan.config.validate_every == 0 or iteration == self._plan.iterations

    def _validate(self, window: "_Window") -> Row:
        result = self._evaluate_validation()
        best = self.progress.best_value
        if best is None or self._sign * result.mean > self._sign * best:
            self.progress = replace(self.progress, best_iteration=self.progress.iteration, best_value=result.mean)
            manifest = make_manifest(self._plan, self._source, self.progress, [result.to_metric(self._source.name)])
            save_bundle(self._folder.bundle, manifest, self._loop.params)
        # After a resume the window holds only what came since; figures of a row are means, so it stays honest.
        return Row(
            iteration=self.progress.iteration,
            seconds=self.progress.seconds,
            tasks_per_second=window.tasks_per_second,
            learning_rate=self._loop.learning_rate(self.progress.iteration - 1),
            loss=window.mean_loss,
            training=window.mean_score,
            validation=result.mean,
            validation_interval=result.confidence_interval,
        )

    def _evaluate_validation(self) -> Evaluation:
        return evaluate(
            self._plan.learner,
            self._loop.params,
            self._source.validation,
            self._plan.validation,
            split="validation",
            episodes=self._plan.config.validation_episodes,
            seed=self._plan.config.seed,
        )

    def _draw(self) -> None:
        rows = read_rows(self._folder.log)
        if rows:
            metric = "accuracy" if self._sign > 0 else "mean_squared_error"
            title = f"{self._plan.config.method} on {self._source.name}"
            plot_learning_curve(rows, title, metric, self._folder.curve)


class _Window:
    """Means since the last validation; sums stay on the device so that no step waits for it."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._tasks = 0
        self._steps = 0
        self._loss = torch.zeros(())
        self._score = torch.zeros(())

    def add(self, loss: torch.Tensor, value: torch.Tensor, tasks: int) -> None:
        self._loss = self._loss.to(loss.device) + loss
        self._score = self._score.to(value.device) + value
        self._steps += 1
        self._tasks += tasks

    @property
    def tasks_per_second(self) -> float:
        return self._tasks / self.seconds if self.seconds else 0.0

    @property
    def mean_loss(self) -> float:
        return self._loss.item() / max(self._steps, 1)

    @property
    def mean_score(self) -> float:
        return self._score.item() / max(self._steps, 1)
