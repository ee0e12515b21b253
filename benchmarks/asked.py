"""What a bundle's learner answers to many tasks in this process: to queries, and to support examples left out."""

from collections.abc import Callable
from dataclasses import replace

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
from innerloop_trainer.data import ClassExamples
from innerloop_trainer.data.example_set import ExampleSet

AT_ONCE = 50
"""Tasks, or inputs of a backbone, that are computed together."""


class Asked:
    """A bundle's learner, asked about tasks.

    Args:
        bundle: the bundle; for what takes a calibration, a calibrated one.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._learner, self._params = bundle.learner, bundle.params
        self._calibration = bundle.manifest.calibration

    def calibration(self, ways: int, shots: float) -> TaskCalibration:
        """Its calibration for tasks of a size."""
        if self._calibration is None:
            raise SystemExit("the model is not calibrated")
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


class AskedByFeatures(Asked):
    """A learner whose features depend on nothing but their own input, which are computed once for all tasks."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self._backbone = bundle.learner.backbone
        self._learner = bundle.learner.on_features

    @torch.no_grad()
    def read(self, split: ClassExamples) -> ClassExamples:
        """A split of features [F]."""

        def features(x: Tensor) -> Tensor:
            return self._backbone.apply(self._params, x[None], torch.ones(1, len(x)), {}).values[0]

        return embedded(split, self._learner.spec.input, features, self._backbone.features)

    @torch.no_grad()
    def left_out(self, support: Support) -> NDArray[np.float32]:
        """See Asked.left_out; all at once."""
        tasks, size = support.mask.shape
        padded = replace(support, max_ways=self._learner.padded_ways(support.max_ways))
        parts = torch.arange(size).view(1, size, 1).expand(tasks, -1, -1)
        logits: NDArray[np.float32] = self._learner.left_out(self._params, padded, parts).numpy()
        return logits[..., : support.max_ways]


def embedded(split: ClassExamples, inputs: InputSpec, features: Callable[[Tensor], Tensor], size: int) -> ClassExamples:
    """A split whose inputs are the features of its examples, which are computed once.

    Args:
        split: the split.
        inputs: normalisation of its examples.
        features: function from normalised examples [N, *input] to their features [N, size].
        size: number of features of an example.
    """

    def embed(data: ExampleSet) -> ExampleSet:
        parts = [features(normalise(inputs, some)) for some in torch.from_numpy(data.examples).split(AT_ONCE)]
        return replace(data, examples=torch.cat(parts).numpy())

    return split.with_inputs(embed, InputSpec((size,)))


def ask(bundle: Bundle) -> Asked:
    """A bundle's learner, asked in the quickest way that gives its answers."""
    return (AskedByFeatures if bundle.learner.leaves_out else Asked)(bundle)
