"""Accuracy through a running server, over the episodes that offline evaluation draws."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from innerloop import Client
from innerloop_learner.encoders import unpack_texts
from innerloop_trainer.data import ClassExamples, EpisodeShape
from innerloop_trainer.evaluation import evaluation_batches


def served_accuracies(
    client: Client,
    model: str,
    sampler: ClassExamples,
    shape: EpisodeShape,
    episodes: int,
    *,
    texts: bool = False,
    rate: int | None = None,
) -> NDArray[Any]:
    """Accuracy of each episode [episodes], its inputs sent as they lie in the data.

    Args:
        client: client of the server.
        model: name of the model.
        sampler: split to draw from.
        shape: shape of the episodes.
        episodes: number of episodes.
        texts: whether inputs are texts.
        rate: samples a second of audio, None for other inputs.
    """

    def sent(inputs: Tensor) -> Any:
        return unpack_texts(inputs.numpy()) if texts else inputs.numpy()

    accuracies = []
    for tasks, generator in evaluation_batches(0, episodes):
        raw = sampler.sample_raw(shape, tasks, generator)
        for task in range(tasks):
            labels = [sampler.names[int(raw.classes[task, label])] for label in raw.support_labels[task]]
            truth = [sampler.names[int(raw.classes[task, label])] for label in raw.query_labels[task]]
            with client.adapt(model, sent(raw.support[task]), labels, rate=rate) as adaptation:
                answers = adaptation.predict(sent(raw.query[task]), rate=rate).labels
            accuracies.append(np.mean([answer == true for answer, true in zip(answers, truth, strict=True)]))
    return np.array(accuracies)
