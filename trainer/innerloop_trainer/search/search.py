"""The search itself: proposes, trains, validates and keeps what was found."""

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import torch

from innerloop_learner.backbones import Backbone, build_backbone
from innerloop_learner.state import section
from innerloop_trainer.config import TrainingConfig
from innerloop_trainer.data import DataSource
from innerloop_trainer.outer_loop import defaults_of
from innerloop_trainer.outer_loop.loop import PARAMETERS
from innerloop_trainer.plan import TrainingPlan, make_plan
from innerloop_trainer.runs.folder import RunError, RunFolder
from innerloop_trainer.runs.log import read_rows
from innerloop_trainer.runs.prepare import prepare
from innerloop_trainer.runs.training import DivergedError, Report, Training
from innerloop_trainer.search.admission import Admission
from innerloop_trainer.search.arithmetic import multiply_adds
from innerloop_trainer.search.config import SearchConfig, SearchReport
from innerloop_trainer.search.held_out import BesideHeldOut
from innerloop_trainer.search.log import SearchFolder, Tried
from innerloop_trainer.search.searchers import Searcher, SearchError, Wanted, build_searcher, searchers
from innerloop_trainer.search.spaces import Architecture, spaces
from innerloop_trainer.seeds import generator_for

MOST_REPEATS = 300
"""Proposals in a row that were tried before, after which a search ends: the searcher knows nothing else to try."""


class Search:
    """A search of architectures, which can be stopped at any outer step of a trial and resumed there.

    Args:
        config: configuration of the search.
        source: the data that the configuration of the runs names, loaded.
        folder: folder of the search.
        device: device to train on.
        resume: whether to continue the search that the folder holds.

    Attributes:
        config, source, folder: as given; defaults of the configuration are filled in.
        trials: number of architectures to train.
        space: space of architectures.
        tried: what was tried so far.

    Raises:
        SearchError: settings that contradict each other or the space, a folder that can't be used, or no architecture
            that is allowed.
        UnknownNameError: there is no searcher, space or method of this name.
        SettingsError: searcher or method don't take these settings, or the searcher does not search this space.
        ConfigError, DataError: see `make_plan`.
    """

    def __init__(
        self,
        config: SearchConfig,
        source: DataSource,
        folder: SearchFolder,
        device: torch.device,
        *,
        resume: bool = False,
    ) -> None:
        folder.check(resume=resume)
        self.space = spaces[config.space]
        self.trials = searchers[config.searcher].usual_trials if config.trials is None else config.trials
        self.config, self.source, self.folder = replace(config, trials=self.trials), source, folder
        self._device = device
        self._known: dict[Architecture, float] = {}
        if source.task_kind == "regression":
            raise SearchError(f"a search goes by accuracy, and {source.name} has targets and no classes")
        if self.trials > self.space.size:
            raise SearchError(f"space {config.space} has {self.space.size} architectures; lower --trials to that")
        admission = Admission(self._backbone, source.input.shape, config.most_multiply_adds)
        wanted = Wanted(self.space, admission.admits, admission.refusal)
        seed = config.training.seed
        self._searcher = build_searcher(config.searcher, wanted, seed, config.settings)
        if self.trials < self._searcher.least_trials:
            raise SearchError(
                f"{config.searcher} learns nothing in so few trials; raise --trials to {self._searcher.least_trials} "
                f"or more, or see its settings (`innerloop methods {config.searcher}`)"
            )
        generator = generator_for(seed, "any architecture")
        some = wanted.first(lambda: self.space.draw(generator))
        make_plan(self._training_config(some), source, device)  # finds mistakes before anything is written
        supernet = self._supernet()
        if supernet is not None:
            make_plan(*supernet, device)
        self.tried = folder.read() if resume else []
        if resume and _apart_from_trials(folder.load_config()) != _apart_from_trials(_plain(self.config)):
            raise SearchError(
                f"{folder.path} holds a search of another configuration (see search.json there); resume with that one, "
                "of which only --trials may change, or name another folder"
            )

    @property
    def best(self) -> Tried | None:
        """The architecture of the best accuracy so far; None before there is any."""
        return max((each for each in self.tried if not each.failure), key=lambda each: each.accuracy, default=None)

    def settings_of(self, tried: Tried) -> dict[str, Any]:
        """The settings of the backbone that an architecture stands for, with those that the user gave."""
        return self._backbone_settings(self.space.architecture(tried.architecture))

    def run(self, report: Callable[[SearchReport], None], interrupted: Callable[[], bool]) -> bool:
        """Try architectures until all trials are done, or until interrupted. Either way everything is saved.

        A search ends early if its searcher proposes nothing new any more.

        Args:
            report: called with the progress from time to time, and after every trial.
            interrupted: called after every outer step; if it returns true, the search stops.

        Returns:
            whether the search is finished.

        Raises:
            SearchError: what was tried is not what this search would have tried.
            OSError: a file of the search can't be written.
        """
        self.folder.save_config(_plain(self.config))
        if not self._study(report, interrupted):
            return False
        self._catch_up()
        while len(self.tried) < self.trials:
            if interrupted():
                return False
            architecture = untried(self._searcher, self._known)
            if architecture is None:
                break
            if not self._try(architecture, report, interrupted):
                return False
        return True

    def _study(self, report: Callable[[SearchReport], None], interrupted: Callable[[], bool]) -> bool:
        """Train the network that the searcher studies, if it wants one; whether it is finished."""
        supernet = self._supernet()
        if supernet is None:
            return True
        run = RunFolder(self.folder.supernet)
        training = self._prepared(supernet[0], run, supernet[1])
        if not training.run(self._reporting(0, training.plan, report), interrupted):
            return False
        state, _ = run.load_latest(self._device)
        self._searcher.study(section(state, PARAMETERS))
        return True

    def _supernet(self) -> tuple[TrainingConfig, DataSource] | None:
        """Configuration and data of the network that the searcher studies; None if it wants none."""
        config = self._searcher.supernet(self._training_config((0,) * len(self.space.choices)))
        if config is None:
            return None
        return config, replace(self.source, train=BesideHeldOut(self.source.train, self.source.validation))

    def _catch_up(self) -> None:
        """Tell the searcher what the log says."""
        for each in self.tried:
            shutil.rmtree(self.folder.trial(each.trial), ignore_errors=True)
            architecture = untried(self._searcher, self._known)
            if architecture is None or self.space.described(architecture) != each.architecture:
                raise SearchError(
                    f"{self.folder.tried} does not hold what this search tries as trial {each.trial}; search again in "
                    "another folder"
                )
            self._learn(architecture, each)
        self._save_best()

    def _learn(self, architecture: Architecture, tried: Tried) -> None:
        self._known[architecture] = tried.accuracy
        self._searcher.learn(architecture, tried.accuracy)

    def _try(
        self, architecture: Architecture, report: Callable[[SearchReport], None], interrupted: Callable[[], bool]
    ) -> bool:
        """Train an architecture, and keep what came of it; whether it was trained to the end."""
        number = len(self.tried) + 1
        run = RunFolder(self.folder.trial(number))
        training = self._prepared(self._training_config(architecture), run, self.source)
        failure = ""
        try:
            if not training.run(self._reporting(number, training.plan, report), interrupted):
                return False
        except DivergedError as error:
            failure = str(error)
        tried = self._outcome(number, architecture, training, failure)
        self.folder.append(tried)
        self.tried.append(tried)
        self._save_best()
        shutil.rmtree(run.path, ignore_errors=True)
        self._learn(architecture, tried)
        report(SearchReport(number, self.trials, None, training.plan.iterations, tried, self.best))
        return True

    def _outcome(self, number: int, architecture: Architecture, training: Training, failure: str) -> Tried:
        """What came of a trial that ended, by a failure or with the validation of its last step."""
        backbone = self._backbone(architecture)
        row = None if failure else read_rows(training.folder.log)[-1]
        return Tried(
            trial=number,
            architecture=self.space.described(architecture),
            accuracy=0.0 if row is None else row.validation,
            confidence_interval=0.0 if row is None else row.validation_interval,
            multiply_adds=multiply_adds(backbone, self.source.input.shape),
            parameters=_learned(backbone),
            seconds=training.progress.seconds,
            failure=failure,
        )

    def _save_best(self) -> None:
        best = self.best
        if best is not None:
            network = {"backbone": self.space.backbone, "backbone_settings": self.settings_of(best)}
            self.folder.save_best({**network, **asdict(best)})

    def _prepared(self, config: TrainingConfig, run: RunFolder, source: DataSource) -> Training:
        """A run, to begin or to go on with."""
        if run.exists:
            with suppress(RunError):  # it was stopped before anything of it was saved
                return prepare(config, run, self._device, resume=True, source=source).training
        shutil.rmtree(run.path, ignore_errors=True)
        return prepare(config, run, self._device, source=source).training

    def _reporting(
        self, number: int, plan: TrainingPlan, report: Callable[[SearchReport], None]
    ) -> Callable[[Report], None]:
        return lambda of_training: report(
            SearchReport(number, self.trials, of_training, plan.iterations, None, self.best)
        )

    def _training_config(self, architecture: Architecture) -> TrainingConfig:
        """The configuration of the run of an architecture, which is validated once, at its end."""
        config = self.config.training
        iterations = config.iterations or defaults_of(config.method).iterations
        return replace(
            config,
            backbone=self.space.backbone,
            backbone_settings=self._backbone_settings(architecture),
            validate_every=iterations,
            iterations=iterations,
        )

    def _backbone_settings(self, architecture: Architecture) -> dict[str, Any]:
        return {**self.config.training.backbone_settings, **self.space.settings(architecture)}

    def _backbone(self, architecture: Architecture) -> Backbone:
        return build_backbone(self.space.backbone, self.source.input.shape, self._backbone_settings(architecture))


def untried(searcher: Searcher, known: Mapping[Architecture, float]) -> Architecture | None:
    """The searcher's next proposal that was not tried before; None if it has none any more.

    Proposals that were tried before are answered with what is known of them.

    Args:
        searcher: the searcher.
        known: score of each architecture that was tried.
    """
    for _ in range(MOST_REPEATS):
        architecture = searcher.propose()
        if architecture not in known:
            return architecture
        searcher.learn(architecture, known[architecture])
    return None


def _learned(backbone: Backbone) -> int:
    """Number of parameters that are learned."""
    params, buffers = backbone.init(torch.Generator()), backbone.buffers()
    return sum(value.numel() for name, value in params.items() if name not in buffers)


def _apart_from_trials(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a search that goes on must have in common with its beginning: no searcher plans by the number of trials."""
    return {name: value for name, value in config.items() if name != "trials"}


def _plain(config: SearchConfig) -> dict[str, Any]:
    """The configuration as it is read back from a file."""
    plain: dict[str, Any] = json.loads(json.dumps(config.to_json()))
    return plain
