"""The study itself: asks for settings, trains with them, and tells what came of it."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from innerloop_learner.bundle import load_bundle
from innerloop_learner.disk import replace_file
from innerloop_learner.manifest import Metric
from innerloop_trainer.bundle_evaluation import evaluate_bundle
from innerloop_trainer.encoders import load_encoded, read_optional_encoder
from innerloop_trainer.evaluation import metric_name
from innerloop_trainer.measuring import USUAL_TEST, tasks_to_measure
from innerloop_trainer.mistakes import MISTAKES
from innerloop_trainer.recipes import Recipe, make_recipe, read_recipe, write_recipe
from innerloop_trainer.runs.folder import RunFolder
from innerloop_trainer.runs.from_recipe import PreparedRecipe, prepare_recipe
from innerloop_trainer.runs.log import read_rows
from innerloop_trainer.runs.training import Report, Training
from innerloop_trainer.seeds import seed_for
from innerloop_trainer.tuning.dimension import Dimension, applied
from innerloop_trainer.tuning.folder import TuningError, TuningFolder

STARTUP_TRIALS = 5
"""Trials that run to their end before others are compared with their median (Optuna's usual number)."""

MOST_REPEATS = 100
"""Proposals in a row that were tried before, after which a study ends: there is little else to try."""

_FAILURES = (*(each for each in MISTAKES if each is not OSError), torch.OutOfMemoryError)
"""What ends a trial and not the study: contradictory settings, training that diverged, too little memory."""

_FAILURE, _AGAIN, _FOLDER = "failure", "again", "folder"
"""Attributes of a trial: why it failed; that it is no trial of its own; the number of the trial it goes on with."""


@dataclass(frozen=True)
class Tried:
    """A trial that ended.

    Attributes:
        trial: number of the trial; its run is in the folder of this number.
        settings: values of the settings that are searched, by name.
        outcome: "complete"; "stopped", since it fell behind the median of others; or "failed".
        validation: its best accuracy, or mean squared error, on validation tasks; None if it failed.
        iteration: number of outer steps taken before that.
        failure: why it failed; empty if it did not.
    """

    trial: int
    settings: Mapping[str, Any]
    outcome: str
    validation: float | None
    iteration: int
    failure: str = ""


@dataclass(frozen=True)
class TuningReport:
    """The progress of a study, for progress bars.

    Attributes:
        trial: number of the trial that is trained.
        ended: number of trials that ended, those of other processes included.
        training: progress of its training; None where it ended.
        total: number of outer steps of its training.
        tried: the trial, if it ended with this report.
        best: the best trial so far; None before there is any.
    """

    trial: int
    ended: int
    training: Report | None
    total: int
    tried: Tried | None
    best: Tried | None


class Tuning:
    """A study that several processes may work on, and that can be stopped and resumed at any outer step of a trial.

    Args:
        settings: settings of the recipe, by name, those that are searched left out or not.
        dimensions: what is searched.
        folder: folder of the study.
        device: device to train on.
        trials: number of trials in all.
        prune: whether trials that fall behind the median are stopped.
        resume: whether to join the study that the folder holds.

    Attributes:
        source: the data.
        folder, trials: as given.
        metric: "accuracy" or "mean_squared_error", on validation tasks.

    Raises:
        TuningError: the folder can't be used, or holds a study of something else.
        ConfigError, SettingsError, DataError, EncoderError: the recipe or its data can't be used.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        dimensions: Sequence[Dimension],
        folder: TuningFolder,
        device: torch.device,
        *,
        trials: int,
        prune: bool = True,
        resume: bool = False,
    ) -> None:
        folder.check(resume=resume)
        self._settings, self._dimensions, self._device, self._prune = settings, dimensions, device, prune
        self.folder, self.trials = folder, trials
        recipe = make_recipe(settings)
        config = {
            "settings": dict(settings),
            "search": {each.name: str(each.distribution) for each in dimensions},
            "prune": prune,
        }
        if resume and folder.load_config() != json.loads(json.dumps(config)):
            raise TuningError(
                f"{folder.path} holds a study of other settings (see tuning.json there); join it with those, or name "
                "another folder"
            )
        tokenizer = None if recipe.tokenizer is None else Path(recipe.tokenizer)
        self.source = load_encoded(recipe.training.data, device, read_optional_encoder(recipe.encoder, tokenizer))
        self.metric = metric_name(self.source.task_kind)
        self._seed = recipe.training.seed
        self._test_episodes = recipe.test_episodes
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        folder.save_config(config)
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(folder.journal))),
            study_name="tuning",
            direction="maximize" if self.source.task_kind == "classification" else "minimize",
            pruner=optuna.pruners.MedianPruner(STARTUP_TRIALS) if prune else optuna.pruners.NopPruner(),
            load_if_exists=True,
        )

    @property
    def tried(self) -> list[Tried]:
        """The trials that ended, in the order of their numbers."""
        ended = [_tried(each, self._dimensions) for each in self._trials() if each.state.is_finished()]
        return sorted(ended, key=lambda each: each.trial)

    @property
    def best(self) -> Tried | None:
        """The trial that validated best, of those that ran to their end; None before there is any."""
        complete = [each for each in self.tried if each.outcome == "complete"]
        sign = 1 if self.metric == "accuracy" else -1
        return max(complete, key=lambda each: sign * (each.validation or 0.0), default=None)

    @property
    def finished(self) -> bool:
        """Whether all trials ended, those of other processes included."""
        states = [each.state for each in self._study.get_trials(deepcopy=False)]
        return not any(each in (TrialState.RUNNING, TrialState.WAITING) for each in states)

    def run(self, report: Callable[[TuningReport], None], interrupted: Callable[[], bool]) -> bool:
        """Try settings until all trials are begun, or until interrupted. Either way everything is saved.

        Args:
            report: called with the progress from time to time, and after every trial.
            interrupted: called after every outer step; if it returns true, the study stops.

        Returns:
            whether this process has nothing left to try.

        Raises:
            OSError: a file can't be written.
        """
        while not interrupted():
            trial, number, lock = self._next()
            if trial is None or lock is None:
                return True
            with lock:
                if not self._try(trial, number, report, interrupted):
                    return False
        return False

    def test_best(self) -> Metric | None:
        """Measure the best trial, and no other, on test classes; None if there is none, or it was measured before."""
        with self.folder.alone():
            best = self.best
            if best is None:
                return None
            known = self._read_test(best)
            if known is not None:
                return known
            run = RunFolder(self.folder.trial(best.trial))
            recipe = make_recipe(read_recipe(run.recipe).settings)
            config = recipe.training
            figure = evaluate_bundle(
                load_bundle(run.bundle, self._device),
                config.data,
                self._device,
                split="test",
                ways=config.ways,
                shots=config.shots,
                queries=config.queries or 15,
                episodes=self._test_episodes or tasks_to_measure(config.method, config.iterations, USUAL_TEST),
                seed=config.seed,
            )
            self._write(figure.metric)
            return figure.metric

    def _next(self) -> tuple[Trial | None, int, Any]:
        """A trial to train and the number of its folder; none if all are begun, or nothing new is proposed."""
        with self.folder.alone():
            self._take_over_abandoned()
            for repeats in range(MOST_REPEATS):
                begun = [each for each in self._trials() if each.state != TrialState.WAITING]
                if len(begun) >= self.trials:
                    break
                # Seeded by what was begun before: a study that is resumed proposes what an uninterrupted one would.
                seed = seed_for(self._seed, "tuning", MOST_REPEATS * len(begun) + repeats) % 2**32
                self._study.sampler = optuna.samplers.TPESampler(seed=seed)
                trial = self._study.ask({each.name: each.distribution for each in self._dimensions})
                earlier = next((each.number for each in begun if each.params == trial.params), None)
                if earlier is None:
                    number = int(trial.user_attrs.get(_FOLDER, trial.number))
                    return trial, number, self.folder.take(trial.number)
                self._fail(trial, f"repeats trial {earlier}", again=True)
        return None, 0, None

    def _take_over_abandoned(self) -> None:
        """Have trials tried again whose process ended in the middle of them."""
        for each in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            lock = self.folder.take(each.number)
            if lock is not None:
                with lock:
                    self._postpone(Trial(self._study, each._trial_id))

    def _postpone(self, trial: Trial) -> None:
        """End a trial that goes on later, in the same folder."""
        number = int(trial.user_attrs.get(_FOLDER, trial.number))
        params = dict(trial.params)
        self._fail(trial, "interrupted", again=True)
        self._study.enqueue_trial(params, user_attrs={_FOLDER: number})

    def _fail(self, trial: Trial, reason: str, *, again: bool = False) -> None:
        trial.set_user_attr(_FAILURE, reason)
        trial.set_user_attr(_AGAIN, again)
        self._study.tell(trial, state=TrialState.FAIL)

    def _try(
        self, trial: Trial, number: int, report: Callable[[TuningReport], None], interrupted: Callable[[], bool]
    ) -> bool:
        """Train with what a trial proposes, and tell what came of it; whether it was not interrupted."""
        try:
            recipe = make_recipe(applied(self._settings, self._dimensions, trial.params))
            prepared = self._prepared(recipe, RunFolder(self.folder.trial(number)))
            if not self._train(trial, prepared, report, interrupted):
                self._postpone(trial)
                return False
        except _FAILURES as error:
            self._fail(trial, str(error))
        with self.folder.alone():
            self._write(None)
        ended = self.tried
        [tried] = [each for each in ended if each.trial == number]
        report(TuningReport(number, len(ended), None, 0, tried, self.best))
        return True

    def _train(
        self,
        trial: Trial,
        prepared: PreparedRecipe,
        report: Callable[[TuningReport], None],
        interrupted: Callable[[], bool],
    ) -> bool:
        """Train to the end, or until the trial falls behind; whether it was not interrupted before either."""
        training = prepared.training
        write_recipe(training.folder.recipe, prepared.recipe, Path.cwd())
        number, ended, best = int(training.folder.path.name), len(self.tried), self.best
        for row in read_rows(training.folder.log):
            if row.iteration <= training.progress.iteration:
                trial.report(row.validation, row.iteration)
        behind = False

        def note(of_training: Report) -> None:
            nonlocal behind
            if of_training.row is not None:
                trial.report(of_training.row.validation, of_training.row.iteration)
                behind = trial.should_prune()
            report(TuningReport(number, ended, of_training, training.plan.iterations, None, best))

        stopped = False

        def stop() -> bool:
            nonlocal stopped
            stopped = not behind and interrupted()
            return behind or stopped

        finished = training.run(note, stop)
        if stopped and not finished:
            return False
        self._tell(trial, training, finished=finished)
        return True

    def _tell(self, trial: Trial, training: Training, *, finished: bool) -> None:
        value = training.progress.best_value
        trial.set_user_attr("iteration", training.progress.best_iteration)
        trial.set_user_attr("validation", value)
        if finished:
            self._study.tell(trial, value)
        else:
            self._study.tell(trial, state=TrialState.PRUNED)

    def _prepared(self, recipe: Recipe, run: RunFolder) -> PreparedRecipe:
        """A run, to begin or to go on with."""
        resume = run.has_checkpoint
        if not resume:  # what is there was stopped before anything of it was saved
            shutil.rmtree(run.path, ignore_errors=True)
        return prepare_recipe(recipe, run, self._device, resume=resume, source=self.source)

    def _trials(self) -> list[FrozenTrial]:
        """All trials but those that were proposed before or go on as others."""
        return [each for each in self._study.get_trials(deepcopy=False) if not each.user_attrs.get(_AGAIN)]

    def _write(self, test: Metric | None) -> None:
        """Write what is known of all trials, and the recipe of the best one."""
        best = self.best
        results = {
            "metric": self.metric,
            "best": None if best is None else best.trial,
            "test": None if test is None else asdict(test),
            "trials": [asdict(each) for each in self.tried],
        }
        replace_file(self.folder.results, (json.dumps(results, indent=2) + "\n").encode())
        if best is not None:
            replace_file(self.folder.best, RunFolder(self.folder.trial(best.trial)).recipe.read_bytes())

    def _read_test(self, best: Tried) -> Metric | None:
        """The figure of the best trial on test classes, if it was measured before."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            results = json.loads(self.folder.results.read_text())
            if results["best"] == best.trial and results["test"] is not None:
                return Metric(**results["test"])
        return None


def _tried(trial: FrozenTrial, dimensions: Sequence[Dimension]) -> Tried:
    outcomes = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "stopped"}
    return Tried(
        trial=int(trial.user_attrs.get(_FOLDER, trial.number)),
        settings={each.name: each.value(trial.params[each.name]) for each in dimensions if each.name in trial.params},
        outcome=outcomes.get(trial.state, "failed"),
        validation=trial.user_attrs.get("validation"),
        iteration=trial.user_attrs.get("iteration", 0),
        failure=trial.user_attrs.get(_FAILURE, ""),
    )
