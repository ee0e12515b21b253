"""Episodes with wrong labels, and what a learner answers to them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from innerloop_learner.bundle import Bundle
from innerloop_learner.calibration import TaskCalibration, probabilities
from innerloop_learner.diagnosis import Diagnosis, diagnose
from innerloop_learner.inputs import normalise
from innerloop_learner.spec import InputSpec
from innerloop_learner.tasks import Episodes, Query, Support
from innerloop_trainer.data import ClassExamples, EpisodeShape, TaskSampler
from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.data.wrong_labels import mislabelled
from innerloop_trainer.seeds import generator_for

AT_ONCE = 50
"""Episodes that are computed together."""


@dataclass(frozen=True)
class Wrong:
    """Wrong labels of an episode: so many in each class, or a single one in the whole task."""

    of_class: int = 0
    single: bool = False


def drawn(
    sampler: TaskSampler, shape: EpisodeShape, wrong: Wrong, episodes: int, seed: int
) -> Iterator[tuple[Episodes, Tensor]]:
    """Batches of episodes, and the labels [T, S] that are given to their examples; those of the episodes are true."""
    for start in range(0, episodes, AT_ONCE):
        generator = generator_for(seed, "doubtful", start, "cpu")
        tasks = min(AT_ONCE, episodes - start)
        batch = sampler.sample(shape, tasks, generator)
        true = batch.support.y
        count = torch.full((tasks,), wrong.of_class)
        given = mislabelled(true, shape.ways, count, generator) if wrong.of_class else true.clone()
        if wrong.single:
            rows, place = torch.arange(tasks), torch.randint(true.shape[1], (tasks,), generator=generator)
            other = torch.randint(1, shape.ways, (tasks,), generator=generator)
            given[rows, place] = (given[rows, place] + other) % shape.ways
        yield batch, given


class Asked:
    """A bundle's learner, asked about tasks.

    Args:
        bundle: a calibrated one.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._learner, self._params = bundle.learner, bundle.params
        if bundle.manifest.calibration is None:
            raise SystemExit(f"{bundle.manifest.name} is not calibrated")
        self._calibration = bundle.manifest.calibration

    def calibration(self, ways: int, shots: float) -> TaskCalibration:
        """Its calibration for tasks of a size."""
        return self._calibration.at(ways, shots)

    def read(self, split: ClassExamples) -> ClassExamples:
        """A split with the inputs that `logits` reads: the same, if each task computes other features of them."""
        return split

    @torch.no_grad()
    def logits(self, support: Support, query: Tensor) -> NDArray[np.float32]:
        """Logits [T, Q, W] of queries [T, Q, *input]."""
        ways = support.max_ways
        padded = replace(support, max_ways=self._learner.padded_ways(ways))
        state = self._learner.adapt(self._params, padded).state
        asked = Query(query, torch.ones(query.shape[:2], dtype=torch.bool))
        logits: NDArray[np.float32] = self._learner.predict(self._params, state, asked)[..., :ways].numpy()
        return logits

    def left_out(self, support: Support) -> NDArray[np.float32]:
        """Logits [T, S, W] of each support example by the task without it."""
        answers = []
        for place in range(support.x.shape[1]):
            others = [each for each in range(support.x.shape[1]) if each != place]
            rest = replace(support, x=support.x[:, others], y=support.y[:, others], mask=support.mask[:, others])
            answers.append(self.logits(rest, support.x[:, [place]]))
        return np.concatenate(answers, 1)

    def diagnoses(self, support: Support) -> list[Diagnosis]:
        """What a server would answer for each task."""
        calibration = self.calibration(support.max_ways, (support.x.shape[1] - 1) / support.max_ways)
        sure = probabilities(self.left_out(support), calibration)
        return [diagnose(y, each) for y, each in zip(support.y.numpy(), sure, strict=True)]

    def accuracy(self, support: Support, batch: Episodes) -> NDArray[np.float64]:
        """Accuracy of each task [T] on the queries of a batch, after learning from a support set."""
        right = self.logits(support, batch.query.x).argmax(-1) == batch.targets.numpy()
        accuracy: NDArray[np.float64] = right.mean(1)
        return accuracy


class AskedByClassMeans(Asked):
    """Prototypes over features that depend on nothing but their own input, and so are computed once."""

    @torch.no_grad()
    def read(self, split: ClassExamples) -> ClassExamples:
        """A split of features [F]."""

        def embed(data: ExampleSet) -> ExampleSet:
            features = []
            for some in torch.from_numpy(data.examples).split(AT_ONCE):
                x = normalise(self._learner.spec.input, some)[None]
                features.append(self._learner.backbone.apply(self._params, x, torch.ones(1, len(some)), {})[0][0])
            return replace(data, examples=torch.cat(features).numpy())

        return split.with_inputs(embed, InputSpec(self._learner.backbone.feature_shape))

    @torch.no_grad()
    def logits(self, support: Support, query: Tensor) -> NDArray[np.float32]:
        """See Asked.logits, given features."""
        means = support.shares(torch.float32).transpose(1, 2) @ support.x  # [T, W, F]
        logits: NDArray[np.float32] = -torch.cdist(query, means).square().numpy()
        return logits


def ask(bundle: Bundle) -> Asked:
    """A bundle's learner, asked in the quickest way that gives its answers."""
    spec = bundle.manifest.learner
    by_means = spec.method == "protonet" and spec.backbone_settings.get("norm") == "batch"
    return AskedByClassMeans(bundle) if by_means else Asked(bundle)
