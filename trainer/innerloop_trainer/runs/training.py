"""Meta-training: the loop that takes outer steps, validates and saves."""

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import torch

from innerloop_learner.bundle import save_bundle
from innerloop_learner.objectives import Stage
from innerloop_learner.precision import tf32_allowed
from innerloop_learner.tasks import Episodes, Params
from innerloop_trainer.config import ConfigError, differences
from innerloop_trainer.evaluation import Evaluation, evaluate, metric_name, score
from innerloop_trainer.outer_loop import Estimator, OuterLoop, Replayed, can_replay
from innerloop_trainer.parallel import ProcessError, Sharded, ThreadsOrWorkers, check_in_parts
from innerloop_trainer.plan import TrainingPlan
from innerloop_trainer.relative_paths import same_source
from innerloop_trainer.runs.checkpoints import Checkpoints
from innerloop_trainer.runs.classes import class_differences, run_classes
from innerloop_trainer.runs.conduct import USUAL, Conduct
from innerloop_trainer.runs.folder import Progress, RunError, RunFolder, deserialised, serialised
from innerloop_trainer.runs.learning_curve import plot_learning_curve
from innerloop_trainer.runs.log import Row, RunLog, read_rows
from innerloop_trainer.runs.provenance import make_manifest
from innerloop_trainer.runs.recent_figures import RecentFigures
from innerloop_trainer.runs.room import UnsavedError, no_room, saving
from innerloop_trainer.seeds import seed_for

SECONDS_BETWEEN_REPORTS = 0.25

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
        notice: something to tell the user once, such as that the run could not be saved; None usually.
    """

    progress: Progress
    tasks_per_second: float
    loss: float
    row: Row | None
    notice: str | None = None


class Training:
    """One run: trains, validates, keeps the best parameters, and can be stopped and resumed at any outer step.

    Args:
        plan: plan of the run.
        folder: folder of checkpoints and logs.
        device: device to train on.
        initial: parameters to start from; a run that is resumed has its own.
        resume: whether to continue the run that the folder holds.
        conduct: how the run is carried out.
        seen: digests of the classes that `initial` and teachers were trained and validated on, by split, as in a
            manifest.

    Attributes:
        plan, folder, device: as given.
        source: source of the episodes, as the plan has it.
        progress: how far the run has come.

    Raises:
        RunError: the folder holds a run that was not to be resumed, no run to resume, or a run of other settings.
        ConfigError: so many processes can't divide the tasks of an outer step.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        folder: RunFolder,
        device: torch.device,
        initial: Params,
        *,
        resume: bool = False,
        conduct: Conduct = USUAL,
        seen: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._group = conduct.group
        if self._group.leads:
            folder.check(resume=resume)
        self.plan, self.source, self.folder, self.device = plan, plan.source, folder, device
        self._sign = 1 if plan.source.task_kind == "classification" else -1
        self._choice: ThreadsOrWorkers | None = None
        replay = conduct.replay and can_replay(device) and self._group.size == 1
        self._loop = OuterLoop(
            self._divided(conduct.workers),
            {name: value.to(device) for name, value in initial.items()},
            plan.optimizer,
            plan.config.seed,
            replay=replay,
        )
        self._generator = torch.Generator(device)
        self._next_tasks: Callable[[Stage], Episodes] = self._drawn
        self._replayed: list[Replayed[Any]] = [] if self._loop.replayed is None else [self._loop.replayed]
        if replay and self.source.train.on_device:
            self._next_tasks = Replayed("draws of tasks", self._drawn, device, [self._generator])
            self._replayed.append(self._next_tasks)
        self._recent = RecentFigures(device)
        self._clock = self._reported = self._saved = 0.0
        self._save_seconds = 60 * conduct.save_minutes
        self._checkpoints = Checkpoints(folder, conduct.keep_checkpoints)
        self._log: RunLog | None = None
        self._write_best: Callable[[], object] | None = None
        self._write_error: OSError | None = None
        self._told: str | None = None
        self._seen = seen
        self.progress = Progress()
        if resume and self._group.leads:
            self._resume()

    @property
    def finished(self) -> bool:
        """Whether all outer steps are taken."""
        return self.progress.iteration >= self.plan.iterations

    def run(self, report: Callable[[Report], None], interrupted: Callable[[], bool]) -> bool:
        """Train to the end or until interrupted. Either way everything is saved.

        The run is saved after every validation, and every `save_minutes`, while training goes on. What can't be
        written, for a full disk, is written when the next saving is due, and until then the last checkpoint stays. If
        an exception ends the run, the last checkpoint stays; after an error of the file system, and if another process
        has ended, the run tries to save once more.

        Of several processes the one that leads validates, reports and writes. All stop when one is interrupted.

        Args:
            report: called with the progress from time to time, and after every validation.
            interrupted: called after every outer step; if it returns true, the run stops.

        Returns:
            whether the run is finished.

        Raises:
            DivergedError: the outer loss or a parameter is no longer finite, or no validation gave a finite figure.
            OSError: a file of the run can't be written when it starts.
            UnsavedError: there is no room for a file of the run when it starts, or the run can't be saved when it ends.
            ProcessError: another process of the run has ended or failed.
        """
        with self._group.together():
            if self._group.leads:
                self._begin_saving()
        self._follow_leader()
        self._clock = time.perf_counter()
        if self._group.leads:
            with saving("the logs", self.folder.path, then="go on with --resume"):
                self._log = RunLog(self.folder, self.progress.iteration)
        try:
            self._train(report, interrupted)
            self._finish_saving()
        except (OSError, ProcessError):
            with suppress(OSError):
                self._save()
            raise
        finally:
            self._checkpoints.wait()
            if self._group.leads:  # what ended the run may have come while the best parameters waited for room
                self._wrote_validations()
            if self._choice is not None:
                self._choice.close()
            if self._log is not None:
                self._log.close()
        if self._group.leads:
            self._draw()
        if self._group.leads and self.finished and self.progress.best_value is None:
            raise DivergedError(
                "no validation gave a finite figure: adapting diverges on unseen tasks; train again into another "
                "folder with a lower learning rate inside (--set rate=...)"
            )
        return self.finished

    def _divided(self, workers: int | None) -> Estimator:
        """The estimator of the run, whose tasks processes divide if there are several."""
        plan, group = self.plan, self._group
        if group.size > 1:
            check_in_parts(plan.estimator, plan.meta_batch, group.size)
            return Sharded(plan.estimator, group)
        if workers == 1:
            return plan.estimator
        if self.device.type != "cpu":
            if workers is None:
                return plan.estimator
            raise ConfigError("workers divide tasks on a CPU; leave --workers out, or start one process per GPU")
        self._choice = ThreadsOrWorkers(plan.estimator, plan.meta_batch, plan.iterations, workers)
        return self._choice

    def _train(self, report: Callable[[Report], None], interrupted: Callable[[], bool]) -> None:
        while not self.finished or self._validation_due:
            if not self._validation_due:  # else the run was stopped before it could be validated
                self._step()
            self._report(report, self._validate() if self._validation_due else None)
            stop = self._group.any(interrupted())
            if stop or time.perf_counter() - self._saved > self._save_seconds:
                self._save()
            if stop:
                break

    def _step(self) -> None:
        plan, iteration = self.plan, self.progress.iteration
        self._generator.manual_seed(seed_for(plan.config.seed, "training", iteration))
        episodes = self._next_tasks(Stage())
        with tf32_allowed(plan.config.precision == "tf32"):
            estimate = self._loop.step(episodes, iteration)
        self._recent.add(estimate.loss, score(estimate.outputs, estimate.answered or episodes).mean())
        self.progress = replace(self.progress, iteration=iteration + 1)

    def _drawn(self, stage: Stage) -> Episodes:
        """The tasks of an outer step, by the generator alone."""
        del stage
        return self.source.train.sample(self.plan.episodes, self.plan.meta_batch, self._generator)

    @property
    def _validation_due(self) -> bool:
        reached = self.progress.iteration % self.plan.config.validate_every == 0 or self.finished
        return reached and self._recent.steps > 0

    def _validate(self) -> Row | None:
        """Validate, keep the best parameters and save; other processes than the leading one wait for it."""
        loss, training = self._recent.means()
        self._check_finite(loss)
        self._count_time()
        row = self._validated(loss, training) if self._group.leads else None
        self._recent = RecentFigures(self.device)
        self._clock = time.perf_counter()  # time spent validating does not count as training
        self._save()
        self._follow_leader()
        return row

    def _validated(self, loss: float, training: float) -> Row:
        result = self._evaluate_validation()
        if self._is_best(result.mean):
            progress = replace(self.progress, best_iteration=self.progress.iteration, best_value=result.mean)
            metric = result.to_metric(self.source.name)
            served = replace(self.plan, learner=self.plan.learner.settled(self._loop.params))
            manifest = make_manifest(served, self.source, progress, [metric], self._seen)
            files = {} if self.source.encoder is None else self.source.encoder.files
            # It may have to wait for room, and the next outer step changes parameters in place.
            params = {name: value.clone() for name, value in self._loop.params.items()}
            self._write_best = partial(save_bundle, self.folder.bundle, manifest, params, files)
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
        if self._log is not None:
            self._log.add(row)
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
            episodes=self.plan.validation_episodes,
            seed=self.plan.config.seed,
        )

    def _report(self, report: Callable[[Report], None], row: Row | None) -> None:
        """Report a validation or a notice, or the progress if the last report was a while ago."""
        notice = self._notice()
        if row is not None:
            report(Report(self.progress, row.tasks_per_second, row.loss, row, notice))
        elif notice is not None or time.perf_counter() - self._reported > SECONDS_BETWEEN_REPORTS:
            loss, _ = self._recent.means()
            self._count_time()
            report(Report(self.progress, self._recent.steps_per_second * self.plan.meta_batch, loss, None, notice))
        else:
            return
        self._reported = time.perf_counter()

    def _notice(self) -> str | None:
        """What the user has not been told yet."""
        if self._choice is not None and (chosen := self._choice.take_notice()) is not None:
            return chosen
        for replayed in self._replayed:
            if (refused := replayed.take_notice()) is not None:
                return refused
        problem = self._problem
        text = None if problem is None else f"the run could not be saved ({problem}); training goes on, and tries again"
        new, self._told = text if text != self._told else None, text
        return new

    def _count_time(self) -> None:
        """Add the time since the last call to the training time; the device must have finished its work before."""
        now = time.perf_counter()
        self._recent.seconds += now - self._clock
        self.progress = replace(self.progress, seconds=self.progress.seconds + now - self._clock)
        self._clock = now

    def _check_finite(self, loss: float) -> None:
        """Refuse to go on if training diverged. The loss alone does not tell, since the latest step came after it."""
        if not math.isfinite(loss):
            what = f"the outer loss was {loss} before"
        elif not all(bool(value.isfinite().all()) for value in self._loop.params.values()):
            what = "parameters are no longer finite after"
        else:
            return
        raise DivergedError(
            f"{what} step {self.progress.iteration}: training diverged; "
            f"train again into another folder with a lower learning rate, inside or outside"
        )

    def _save(self) -> None:
        """Begin to save everything needed to resume; parameters that are not finite never replace good ones."""
        self._check_finite(self._recent.means()[0])
        self._count_time()
        if self._group.leads and self._wrote_validations():
            self._checkpoints.save(self._state(), self.progress)
        self._saved = self._clock = time.perf_counter()  # time spent saving does not count as training

    def _begin_saving(self) -> None:
        """Write what a run needs from its first outer step on: its configuration, and a checkpoint."""
        with saving("the first files", self.folder.path, then="give the same command again"):
            self.folder.save_classes(run_classes(self.source))
            self.folder.save_config(self.plan.config)
            self._clock = time.perf_counter()
            self._save()
            self._checkpoints.must_be_written()

    def _finish_saving(self) -> None:
        """Wait until the run is saved, and try once more if that failed."""
        self._checkpoints.wait()
        if self._problem is not None:
            self._save()
            self._checkpoints.wait()
        if self._problem is not None:
            advice = "make room" if no_room(self._problem) else "mend that"
            raise UnsavedError(
                f"{self.folder.path} could not be saved ({self._problem}); {advice}, and go on from what was saved "
                "before with --resume"
            ) from self._problem

    def _wrote_validations(self) -> bool:
        """Write what validations gave: the bundle of the best one, and the logs. Whether all of it is written.

        A checkpoint must wait until it is, since a run that resumes from there does not validate again.
        """
        try:
            if self._write_best is not None:
                self._write_best()
                self._write_best = None
            if self._log is not None:
                self._log.write()
        except OSError as error:
            self._write_error = error
        else:
            self._write_error = None
        return self._write_error is None

    @property
    def _problem(self) -> OSError | None:
        """Why the run could not be saved the last time; None if it could."""
        return self._write_error or self._checkpoints.problem

    def _state(self) -> Params:
        return {**self._loop.state(), RECENT_FIGURES: self._recent.state()}

    def _follow_leader(self) -> None:
        """Take over the state of the leading process, so that none ever trains other parameters.

        Raises:
            RunError: this process has other settings or data.
        """
        if self._group.size == 1:
            return
        run = {"config": self.plan.config.to_json(), "classes": run_classes(self.source)}
        ours = json.dumps(run, sort_keys=True).encode()
        same = self._group.from_leader(ours) == ours
        content = self._group.from_leader(serialised(self._state(), self.progress) if self._group.leads else b"")
        with self._group.together():
            if not same:
                raise RunError(
                    "this process has other settings or other data than the first one; give all the same command, and "
                    "the same files on every machine"
                )
            if not self._group.leads:
                self._restore(*deserialised(content))

    def _restore(self, state: Params, progress: Progress) -> None:
        self._loop.restore(state)
        self._recent.restore(state[RECENT_FIGURES])
        self.progress = progress

    def _resume(self) -> None:
        self._check_resumable()
        state, progress = self.folder.load_latest(self.device)
        try:
            self._restore(state, progress)
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
            with saving("the learning curve", self.folder.path):
                plot_learning_curve(rows, title, metric, self.folder.curve)
