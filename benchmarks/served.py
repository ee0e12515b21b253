"""Accuracy through a running server, over the episodes that offline evaluation draws."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from innerloop import Client
from innerloop_trainer.data import ClassExamples, EpisodeShape
from innerloop_trainer.evaluation import evaluation_batches


def served_accuracies(
    client: Client, model: str, sampler: ClassExamples, shape: EpisodeShape, episodes: int
) -> NDArray[Any]:
    """Accuracy of each episode [episodes], its images sent as they lie in the data."""
    accuracies = []
    for tasks, generator in evaluation_batches(0, episodes):
        raw = sampler.sample_raw(shape, tasks, generator)
        for task in range(tasks):
            labels = [sampler.names[int(raw.classes[task, label])] for label in raw.support_labels[task]]
            truth = [sampler.names[int(raw.classes[task, label])] for label in raw.query_labels[task]]
            with client.adapt(model, raw.support[task].numpy(), labels) as adaptation:
                answers = adaptation.predict(raw.query[task].numpy()).labels
            accuracies.append(np.mean([answer == true for answer, true in zip(answers, truth, strict=True)]))
    return np.array(accuracies)
