"""What a server says of known and unknown queries, over the episodes that calibrations are measured on."""

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from innerloop import Client
from innerloop_learner.encoders import unpack_texts
from innerloop_trainer.calibration.answers import TASKS_AT_ONCE
from innerloop_trainer.calibration.measure import ALARMS, SHOWN_COVERAGES, area_under_curve, calibration_error
from innerloop_trainer.calibration.open_episodes import distractors_for
from innerloop_trainer.data import ClassExamples, EpisodeShape
from innerloop_trainer.seeds import generator_for


def served_figures(
    client: Client, model: str, sampler: ClassExamples, shape: EpisodeShape, episodes: int, *, texts: bool
) -> dict[str, float]:
    """Figures over the episodes that `answers_of_classes` draws with the seed 1, by the names of `Honesty`.

    Args:
        client: client of the server.
        model: name of the model.
        sampler: split to draw from, of raw inputs.
        shape: shape of the episodes.
        episodes: number of episodes.
        texts: whether inputs are texts.
    """

    def sent(inputs: Tensor) -> Any:
        return unpack_texts(inputs.numpy()) if texts else inputs.numpy()

    found: dict[str, list[Any]] = defaultdict(list)
    wider = replace(shape, ways=shape.ways + distractors_for(sampler, shape.ways))
    for start in range(0, episodes, TASKS_AT_ONCE):
        tasks = min(TASKS_AT_ONCE, episodes - start)
        raw = sampler.sample_raw(wider, tasks, generator_for(1, "calibration", start, torch.device("cpu")))
        for task in range(tasks):
            own, asked = raw.support_labels[task] < shape.ways, raw.query_labels[task]
            labels = raw.support_labels[task][own].tolist()
            with client.adapt(model, sent(raw.support[task][own]), labels) as adaptation:
                answers = [adaptation.predict(sent(raw.query[task]), coverage=level) for level in SHOWN_COVERAGES]
            first, known = answers[0], asked.numpy() < shape.ways
            truth = asked[known].tolist()
            found["own"].append(first.known[known])
            found["others"].append(first.known[~known])
            found["false_alarms"].append(~first.passes_for_known(ALARMS)[known])
            columns = [first.classes.index(label) for label in range(shape.ways)]
            found["probabilities"].append(first.probabilities[known][:, columns])
            found["truth"].append(truth)
            for level, each in zip(SHOWN_COVERAGES, answers, strict=True):
                sets = [labels for labels, member in zip(each.label_sets, known, strict=True) if member]
                found[f"coverage at {level:.0%}"].append([true in some for true, some in zip(truth, sets, strict=True)])
                found[f"size at {level:.0%}"].append([len(some) for some in sets])
    sure, truth = np.concatenate(found.pop("probabilities")), np.concatenate(found.pop("truth"))
    own, others = np.concatenate(found.pop("own")), np.concatenate(found.pop("others"))
    figures = {
        "accuracy": float((sure.argmax(-1) == truth).mean()),
        "error_after": float(calibration_error(sure, truth)),
        "separation": area_under_curve(own, others),
        **{name: float(np.mean(values)) for name, values in found.items()},
    }
    return {name: round(value, 5) for name, value in figures.items()}
