"""`sinusoid`: regression of sine waves, y = A sin(x - phase).

Finn, Abbeel and Levine, Model-Agnostic Meta-Learning, ICML 2017, section 5.1: amplitudes are uniform in [0.1, 5],
phases in [0, pi] and inputs in [-5, 5].
"""

import math

import torch
from torch import Tensor

from innerloop_learner.spec import InputSpec
from innerloop_learner.tasks import Episodes, Query, Support
from innerloop_trainer.data.options import read_options, reject_path, write_options
from innerloop_trainer.data.source import (
    DataError,
    DataSource,
    EpisodeShape,
    SourceLoader,
    SourceRequest,
    TaskSampler,
    sources,
)

AMPLITUDE = (0.1, 5.0)
PHASE = (0.0, math.pi)
X = (-5.0, 5.0)


class Sinusoids(TaskSampler):
    """An endless split of sine waves.

    Args:
        stream: number of the split; splits of different numbers draw different tasks from equal generators.
        device: device that episodes are drawn on.
    """

    def __init__(self, stream: int, device: torch.device) -> None:
        self._stream = stream
        self._device = device

    def sample(self, shape: EpisodeShape, tasks: int, generator: torch.Generator) -> Episodes:
        """See TaskSampler.sample; `shape.shots` support and `shape.queries` query points for each wave, x [T, N, 1]."""
        self.check(shape)
        own = self._own_stream(generator)
        amplitude = self._uniform(AMPLITUDE, (tasks, 1, 1), own)
        phase = self._uniform(PHASE, (tasks, 1, 1), own)
        x = self._uniform(X, (tasks, shape.shots + shape.queries, 1), own)
        y = amplitude * torch.sin(x - phase)
        mask = torch.ones(x.shape[:2], dtype=torch.bool, device=self._device)
        support = Support(
            x=x[:, : shape.shots],
            y=y[:, : shape.shots],
            mask=mask[:, : shape.shots],
            ways=torch.zeros(tasks, dtype=torch.int64, device=self._device),
            max_ways=0,
        )
        return Episodes(support, Query(x[:, shape.shots :], mask[:, shape.shots :]), y[:, shape.shots :])

    def check(self, shape: EpisodeShape) -> None:
        """See TaskSampler.check."""
        if min(shape.shots, shape.queries) < 1:
            raise DataError(
                f"sinusoid: --shots {shape.shots} --queries {shape.queries} won't do; both must be at least 1"
            )

    def _own_stream(self, generator: torch.Generator) -> torch.Generator:
        """A generator seeded by the next number of `generator` and by the stream."""
        drawn = int(torch.randint(2**60, (), generator=generator, device=self._device))
        return torch.Generator(self._device).manual_seed(drawn * 4 + self._stream)

    def _uniform(self, limits: tuple[float, float], shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        low, high = limits
        return low + (high - low) * torch.rand(shape, generator=generator, device=self._device)


class Sinusoid(SourceLoader):
    """The sinusoid source."""

    summary = "regression of sine waves; built in"
    example = "sinusoid"

    def load(self, request: SourceRequest) -> DataSource:
        """As in `SourceLoader`."""
        reject_path(request)
        options = read_options(request, self.options)
        return DataSource(
            name="sinusoid",
            description=(
                "Sine waves with amplitudes in [0.1, 5], phases in [0, pi] and inputs in [-5, 5]; "
                "each split draws from its own random stream"
            ),
            input=InputSpec(shape=(1,)),
            task_kind="regression",
            target_size=1,
            train=Sinusoids(0, request.device),
            validation=Sinusoids(1, request.device),
            test=Sinusoids(2, request.device),
            options=write_options(options),
        )


sources.register("sinusoid")(Sinusoid())
