"""Meta-training: the loop that takes outer steps, validates and saves."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch

from innerloop_learner.bundle import save_bundle
from innerloop_learner.tasks import Params
from innerloop_trainer.config import differences
from innerloop_trainer.evaluation import Evaluation, evaluate, metric_name, score
from innerloop_trainer.outer_loop import OuterLoop
from innerloop_trainer.plan import TrainingPlan
from innerloop_trainer.relative_paths import same_source
from innerloop_trainer.runs.classes import class_differences, run_classes
from innerloop_trainer.runs.folder import Progress, RunError, RunFolder
from innerloop_trainer.runs.learning_curve import plot_learning_curve
from innerloop_trainer.runs.log import Row, RunLog, read_rows
from innerloop_trainer.runs.provenance import make_manifest
from innerloop_trainer.runs.recent_figures import RecentFigures
from innerloop_trainer.seeds import generator_for

SECONDS_BETWEEN_REPORTS = 0.25

SAVE_MINUTES = 10.0
"""Minutes after which a run is saved, which is the most training that is lost when a machine dies."""

RECENT_FIGURES = "recent_figures"
"""Name of the tensor in a checkpoint that holds the figures since the last validation."""


class DivergedError(ValueError):
    """Training diverged; the message says where and what to change."""


@dataclass(frozen=True)
class Report:
    """The progress and latest figures of a run, for progress bars.

    Attributes:
        progress: how far the run has come.
        tasks_per_second: tasks trained on per second since the last validation.
        loss: mean outer loss since the last validation.
        row: figures of the validation that this outer step ended with; None if it ended with none.
    """

    progress: Progress
    tasks_per_second: float
    loss: float
    row: Row | None


class Training:
    """One run: trains, validates, keeps the best parameters, and can be stopped and resumed at any outer step.

    Args:
        plan: plan of the run.
        folder: folder of checkpoints and logs.
        device: device to train on.
        initial: parameters to start from; a run that is resumed has its own.
        resume: whether to continue the run that the folder holds.
        save_minutes: minutes after which the run is saved, besides at validations and at its end.
        seen: digests of the classes that `initial` and teachers were trained and validated on, by split, as in a
            manifest.

    Attributes:
        plan, folder, device: as given.
        source: source of the episodes, as the plan has it.
        progress: how far the run has come.

    Raises:
        RunError: the folder holds a run that was not to be resumed, no run to resume, or a run of other settings.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        folder: RunFolder,
        device: torch.device,
        initial: Params,
        *,
        resume: bool = False,
        save_minutes: float = SAVE_MINUTES,
        seen: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        folder.check(resume=resume)
        self.plan, self.source, self.folder, self.device = plan, plan.source, folder, device
        self._sign = 1 if plan.source.task_kind == "classification" else -1
        self._loop = OuterLoop(
            plan.estimator,
            {name: value.to(device) for name, value in initial.items()},
            plan.optimizer,
            plan.config.seed,
        )
        self._recent = RecentFigures(device)
        self._clock = self._reported = self._saved = 0.0
        self._save_seconds = 60 * save_minutes
        self._seen = seen
        self.progress = Progress()
        if resume:
            self._resume()

    @property
    def finished(self) -> bool:
        """Whether all outer steps are taken."""
        return self.progress.iteration >= self.plan.iterations

    def run(self, report: Callable[[Report], None], interrupted: Callable[[], bool]) -> bool:
        """Train to the end or until interrupted. Either way everything is saved.

        The run is saved after every validation, and every `save_minutes`. If an exception ends it, the last checkpoint
        stays; after an error of the file system, such as a full disk, the run tries to save once more.

        Args:
            report: called with the progress from time to time, and after every validation.
            interrupted: called after every outer step; if it returns true, the run stops.

        Returns:
            whether the run is finished.

        Raises:
            DivergedError: the outer loss is no longer a number, or no validation gave a finite figure.
            OSError: a file of the run can't be written.
        """
        self.folder.save_classes(run_classes(self.source))
        self.folder.save_config(self.plan.config)
        self._clock = time.perf_counter()
        self._save()
        log = RunLog(self.folder, self.progress.iteration)
        try:
            self._train(log, report, interrupted)
        except OSError:
            with suppress(OSError):
                self._save()
            raise
        finally:
            log.close()
        self._draw()
        if self.finished and self.progress.best_value is None:
            raise DivergedError(
                "no validation gave a finite figure: adapting diverges on unseen tasks; train again into another "
                "folder with a lower learning rate inside (--set rate=...)"
            )
        return self.finished

    def _train(self, log: RunLog, report: Callable[[Report], None], interrupted: Callable[[], bool]) -> None:
        while not self.finished or self._validation_due:
            if not self._validation_due:  # else the run was stopped before it could be validated
                self._step()
            self._report(report, self._validate(log) if self._validation_due else None)
            stop = interrupted()
            if stop or time.perf_counter() - self._saved > self._save_seconds:
                self._save()
            if stop:
                break

    def _step(self) -> None:
        plan, iteration = self.plan, self.progress.iteration
        generator = generator_for(plan.config.seed, "training", iteration, self.device)
        episodes = self.source.train.sample(plan.episodes, plan.meta_batch, generator)
        estimate = self._loop.step(episodes, iteration)
        self._recent.add(estimate.loss, score(estimate.outputs, estimate.answered or episodes).mean())
        self.progress = replace(self.progress, iteration=iteration + 1)

    @property
    def _validation_due(self) -> bool:
        reached = self.progress.iteration % self.plan.config.validate_every == 0 or self.finished
        return reached and self._recent.steps > 0

    def _validate(self, log: RunLog) -> Row:
        loss, training = self._recent.means()
        self._check_finite(loss)
        self._count_time()
        result = self._evaluate_validation()
        if self._is_best(result.mean):
            progress = replace(self.progress, best_iteration=self.progress.iteration, best_value=result.mean)
            metric = result.to_metric(self.source.name)
            served = replace(self.plan, learner=self.plan.learner.settled(self._loop.params))
            manifest = make_manifest(served, self.source, progress, [metric], self._seen)
            files = {} if self.source.encoder is None else self.source.encoder.files
            save_bundle(self.folder.bundle, manifest, self._loop.params, files)
            self.progress = progress
        row = Row(
            iteration=self.progress.iteration,
            seconds=self.progress.seconds,
            tasks_per_second=self._recent.steps_per_second * self.plan.meta_batch,
            learning_rate=self.plan.optimizer.rate_at(self.progress.iteration - 1),
            loss=loss,
            training=training,
            validation=result.mean,
            validation_interval=result.confidence_interval,
        )
        log.write(row)
        self._recent = RecentFigures(self.device)
        self._clock = time.perf_counter()  # time spent validating does not count as training
        self._save()
        return row

    def _is_best(self, value: float) -> bool:
        best = self.progress.best_value
        return math.isfinite(value) and (best is None or self._sign * value > self._sign * best)

    def _evaluate_validation(self) -> Evaluation:
        return evaluate(
            self.plan.learner,
            self._loop.params,
            self.source.validation,
            self.plan.validation,
            split="validation",
            episodes=self.plan.config.validation_episodes,
            seed=self.plan.config.seed,
        )

    def _report(self, report: Callable[[Report], None], row: Row | None) -> None:
        """Report a validation, or the progress if the last report was a while ago."""
        if row is not None:
            report(Report(self.progress, row.tasks_per_second, row.loss, row))
        elif time.perf_counter() - self._reported > SECONDS_BETWEEN_REPORTS:
            loss, _ = self._recent.means()
            self._count_time()
            report(Report(self.progress, self._recent.steps_per_second * self.plan.meta_batch, loss, None))
        else:
            return
        self._reported = time.perf_counter()

    def _count_time(self) -> None:
        """Add the time since the last call to the training time; the device must have finished its work before."""
        now = time.perf_counter()
        self._recent.seconds += now - self._clock
        self.progress = replace(self.progress, seconds=self.progress.seconds + now - self._clock)
        self._clock = now

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise DivergedError(
                f"the outer loss was {loss} before step {self.progress.iteration}: training diverged; "
                f"train again into another folder with a lower learning rate, inside or outside"
            )

    def _save(self) -> None:
        """Save everything needed to resume; parameters that are not finite never replace good ones."""
        self._check_finite(self._recent.means()[0])
        self._count_time()
        self.folder.save_latest({**self._loop.state(), RECENT_FIGURES: self._recent.state()}, self.progress)
        self._saved = self._clock = time.perf_counter()  # time spent saving does not count as training

    def _resume(self) -> None:
        self._check_resumable()
        state, self.progress = self.folder.load_latest(self.device)
        try:
            self._loop.restore(state)
            self._recent.restore(state[RECENT_FIGURES])
        except (KeyError, ValueError) as error:
            raise RunError(f"{self.folder.path} can't be resumed ({error}); train again into another folder") from error

    def _check_resumable(self) -> None:
        theirs = self.folder.load_config()
        settings = differences(theirs, self.plan.config)
        # Settings may follow from the classes; where the user named the same data, it is these that need to be named.
        same_data = same_source(theirs.data, self.plan.config.data)
        classes = class_differences(self.folder.load_classes(), run_classes(self.source)) if same_data else []
        if classes or settings:
            what, different = ("on other data", classes) if classes else ("with other settings", settings)
            raise RunError(
                f"{self.folder.path} holds a run {what}: {'; '.join(different)}; "
                f"resume with those of the run, or name another folder"
            )

    def _draw(self) -> None:
        rows = read_rows(self.folder.log)
        if rows:
            metric = metric_name(self.source.task_kind)
            title = f"{self.plan.config.method} on {self.source.name}"
            plot_learning_curve(rows, title, metric, self.folder.curve)
