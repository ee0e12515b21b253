"""Compares methods: trains each on the same budget, and measures all on the same episodes."""

import itertools
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from innerloop_learner.bundle import Bundle, load_bundle
from innerloop_learner.disk import replace_file
from innerloop_learner.learner import methods
from innerloop_trainer.comparison_plot import plot_comparison
from innerloop_trainer.config import ConfigError, TrainingConfig
from innerloop_trainer.data import DataSource, EpisodeShape
from innerloop_trainer.evaluation import metric_name
from innerloop_trainer.mistakes import MISTAKES
from innerloop_trainer.outer_loop import OuterLoop, defaults_of
from innerloop_trainer.plan import make_plan
from innerloop_trainer.results_file import has_results, write_results
from innerloop_trainer.runs.final_test import measure_on_test_split
from innerloop_trainer.runs.folder import RunFolder
from innerloop_trainer.runs.log import read_rows
from innerloop_trainer.runs.prepare import prepare
from innerloop_trainer.runs.training import Training
from innerloop_trainer.seeds import generator_for
from innerloop_trainer.teaching import NO_TEACHERS, Teachers

WARM_UP_STEPS = 3
"""Outer steps that are taken before the time of a step is measured, since the first ones are slower."""

SECONDS_OF_TRIAL = 3.0
"""Seconds of outer steps over which the time of a step is averaged."""

ADAPTATIONS_TIMED = 20
"""Adaptations whose median time is reported."""

GOLDEN_STEP = 0.618034
"""The golden ratio minus 1. Any number of its multiples, modulo 1, spread evenly over 0 to 1."""


RESULTS = ("comparison.json", "comparison.md", "comparison.png")
"""Files of a comparison, beside the folder of its runs."""


@dataclass(frozen=True)
class Budget:
    """The training that every method gets; exactly one of the two is set.

    Attributes:
        iterations: number of outer steps.
        minutes: training time in minutes. Before training, some outer steps are timed, and the minutes are turned into
            a number of outer steps; if the machine gets busier later, training takes longer.
    """

    iterations: int | None = None
    minutes: float | None = None


@dataclass(frozen=True)
class Compared:
    """One method's figures.

    Attributes:
        method: registered name.
        family: kind of method.
        value: accuracy or mean squared error on test episodes.
        confidence_interval: half width of the 95% confidence interval of the value.
        iterations: number of outer steps taken.
        minutes: training time in minutes.
        adapt_ms: median time of adapting to one task, in milliseconds.
        state_bytes: size of one task's state, in bytes.
    """

    method: str
    family: str
    value: float
    confidence_interval: float
    iterations: int
    minutes: float
    adapt_ms: float
    state_bytes: int


@dataclass(frozen=True)
class Failed:
    """A method that could not be compared.

    Attributes:
        method: registered name.
        reason: why.
    """

    method: str
    reason: str


@dataclass(frozen=True)
class Comparison:
    """The figures of all methods.

    Attributes:
        metric: "accuracy" or "mean_squared_error".
        protocol: how the figures were measured.
        compared: one entry for each method, best first.
        failed: methods without figures.
        device: device that they were trained and measured on.
        seed: seed of initial parameters and episodes.
    """

    metric: str
    protocol: str
    compared: Sequence[Compared]
    failed: Sequence[Failed]
    device: str
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Plain data, the machine that it was measured on included."""
        machine = {"processor": platform.machine(), "torch": torch.__version__, "python": platform.python_version()}
        return {**asdict(self), "machine": machine}

    def to_markdown(self) -> str:
        """A table in Markdown with one row per method."""
        name = self.metric.replace("_", " ")
        lines = [
            f"{self.protocol}; {self.device}, seed {self.seed}",
            "",
            f"| method | family | {name} | training | outer steps | adapt | state |",
            "|---|---|---|---|---|---|---|",
        ]
        for each in self.compared:
            figure = _figure(each.value, each.confidence_interval, self.metric)
            lines.append(
                f"| `{each.method}` | {each.family} | {figure} | {each.minutes:.1f} min | {each.iterations:,} "
                f"| {each.adapt_ms:.1f} ms | {each.state_bytes / 1024:,.1f} KiB |"
            )
        lines += ["", *(f"- `{each.method}` is missing: {each.reason}" for each in self.failed)] if self.failed else []
        return "\n".join(lines) + "\n"

    def save(self, folder: Path) -> None:
        """Write comparison.json, comparison.md and comparison.png."""
        results, table, plot = (folder / name for name in RESULTS)
        write_results(results, self.to_json())
        replace_file(table, self.to_markdown().encode())
        bars = [(each.method, each.value, each.confidence_interval) for each in self.compared]
        plot_comparison(bars, self.protocol, self.metric, plot)


def check_comparison_folder(folder: Path) -> None:
    """Check that a comparison can be written to a folder and replaces nothing but an earlier comparison.

    Raises:
        ConfigError: the folder holds files of another origin that have the names of a comparison's files.
    """
    results, *others = (folder / name for name in RESULTS)
    if results.is_file() and has_results(results, ("compared", "failed", "protocol")):
        return
    for file in (results, *others):
        if file.exists():
            raise ConfigError(f"{file} is there and not of a comparison; move it away or name another folder")


def compare_methods(
    names: Sequence[str],
    common: TrainingConfig,
    source: DataSource,
    settings: Mapping[str, Mapping[str, Any]],
    budget: Budget,
    folder: Path,
    device: torch.device,
    queries: int,
    test_episodes: int,
    run: Callable[[Training], bool],
    tell: Callable[[str], None],
    teachers: Teachers = NO_TEACHERS,
) -> Comparison | None:
    """Train and measure each method. Runs that the folder holds already are continued; finished runs are only measured.

    Args:
        names: names of the methods.
        common: configuration of all runs; its method is ignored.
        source: the data that `common` names, loaded, and encoded if there is an encoder.
        settings: settings that only one method gets, by method.
        budget: training that each method gets.
        folder: the runs are kept in `runs/METHOD` below it.
        device: device to train and measure on.
        queries: queries per class in test episodes.
        test_episodes: number of test episodes, the same ones for all methods.
        run: trains a prepared run, and returns whether it is finished.
        tell: called with each notice for the user.
        teachers: models that teach all of them, on that device.

    Returns:
        the comparison; None if a run was stopped before its end, with everything saved.

    Raises:
        UnknownNameError: there is no method of this name.
        DataError: the data can't be used, or can't give the test episodes.
        ConfigError: the folder holds files of another origin that have the names of a comparison's files, or no method
            could be compared.
    """
    check_comparison_folder(folder)
    infos = [methods[name].info for name in names]
    shape = EpisodeShape(common.ways, common.shots, queries)
    source.test.check(shape)
    compared, failed, protocol = [], [], ""
    for info in infos:
        run_folder = RunFolder(folder / "runs" / info.name)
        config = replace(common, method=info.name, settings=settings.get(info.name, {}))
        try:
            config = replace(config, iterations=_iterations(config, budget, source, run_folder, device, tell, teachers))
            training = prepare(
                config, run_folder, device, resume=run_folder.exists, source=source, teachers=teachers
            ).training
            if not run(training):
                return None
            metric = measure_on_test_split(training, shape, test_episodes)
        except MISTAKES as error:
            tell(f"{info.name} is left out: {error}")
            failed.append(Failed(info.name, str(error)))
            continue
        protocol = metric.protocol
        bundle = load_bundle(run_folder.bundle, device)
        row = read_rows(run_folder.log)[-1]
        milliseconds, size = _adapting(bundle, source, shape, device)
        compared.append(
            Compared(
                info.name, info.family, metric.value, metric.confidence_interval, row.iteration, row.seconds / 60,
                milliseconds, size,
            )
        )  # fmt: skip
    if not compared:
        reasons = dict.fromkeys(each.reason for each in failed)
        raise ConfigError(f"no method could be compared: {'; '.join(reasons)}")
    best_first = sorted(compared, key=lambda each: each.value, reverse=source.task_kind == "classification")
    return Comparison(metric_name(source.task_kind), protocol, best_first, failed, str(device), common.seed)


def _iterations(
    config: TrainingConfig,
    budget: Budget,
    source: DataSource,
    run: RunFolder,
    device: torch.device,
    tell: Callable[[str], None],
    teachers: Teachers,
) -> int | None:
    """Number of outer steps that the budget allows; a run that is continued keeps the number that it began with."""
    if defaults_of(config.method).iterations == 1:
        return 1  # a method that learns nothing needs no more
    if budget.minutes is None:
        return budget.iterations
    if run.exists:
        known = run.load_config().iterations
        tell(f"{config.method} goes on with the {known:,} outer steps it was given before")
        return known
    return max(1, round(budget.minutes * 60 / _seconds_per_step(config, source, device, teachers)))


def _seconds_per_step(config: TrainingConfig, source: DataSource, device: torch.device, teachers: Teachers) -> float:
    """Mean time of an outer step in seconds, measured on steps whose results are thrown away."""
    plan = make_plan(replace(config, iterations=10**6), source, device, teachers)
    initial = plan.init(generator_for(config.seed, "initialisation"))
    params = {name: value.to(device) for name, value in initial.items()}
    loop = OuterLoop(plan.estimator, params, plan.optimizer, config.seed)
    durations: list[float] = []
    # The timed steps are spread over the whole schedule, since some outer losses cost more at its beginning.
    positions = (int(plan.iterations * (step * GOLDEN_STEP % 1)) for step in itertools.count())
    while len(durations) <= WARM_UP_STEPS or sum(durations[WARM_UP_STEPS:]) < SECONDS_OF_TRIAL:
        start = time.perf_counter()
        generator = generator_for(config.seed, "trial", len(durations), device)
        loop.step(plan.source.train.sample(plan.episodes, plan.meta_batch, generator), next(positions)).loss.item()
        durations.append(time.perf_counter() - start)
    return statistics.mean(durations[WARM_UP_STEPS:])


@torch.no_grad()
def _adapting(bundle: Bundle, source: DataSource, shape: EpisodeShape, device: torch.device) -> tuple[float, int]:
    """Median milliseconds of adapting to one task, and bytes of its state."""
    durations = []
    for position in range(ADAPTATIONS_TIMED):
        support = source.test.sample(shape, 1, generator_for(0, "timing", position, device)).support
        support = replace(support, max_ways=bundle.learner.padded_ways(support.max_ways))
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # sampling is not timed
        start = time.perf_counter()
        state = bundle.learner.adapt(bundle.params, support).state
        size = sum(value.numel() * value.element_size() for value in state.values())
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        durations.append(time.perf_counter() - start)
    return 1000 * statistics.median(durations), size


def _figure(value: float, interval: float, metric: str) -> str:
    return f"{value:.2%} ± {interval:.2%}" if metric == "accuracy" else f"{value:.4f} ± {interval:.4f}"
