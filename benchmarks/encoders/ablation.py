"""Worth of each part of a head behind a frozen encoder, on unseen classes, over the same episodes.

    python benchmarks/encoders/ablation.py --photos ZIP --clothes ZIP --digits ZIP --intents FOLDER [--only DATA ...]

Gains are over class means of the encoder's unit features, or in rows of an encoder's option over the same head without
the option; 600 episodes each, paired. Nothing is chosen here: defaults come from classes that are not in it. Data sets
are those of run.py. Writes ablation.json.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from data import Data, prepare
from run import CPU, RUNS, SETTINGS, TESTING, add_data_arguments, splits_of, summary, write_figures
from torch import Tensor

from innerloop_learner import InputSpec, LearnerSpec, build_learner
from innerloop_learner.methods.r2d2 import LOG_PENALTY
from innerloop_learner.objectives import build_objective
from innerloop_trainer.data import DataSource, EpisodeShape
from innerloop_trainer.encoders import load_encoded, read_encoder
from innerloop_trainer.evaluation import evaluate
from innerloop_trainer.outer_loop import OptimizerPlan, OuterLoop, build_estimator
from innerloop_trainer.seeds import generator_for

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

RESULTS = Path(__file__).with_name("ablation.json")
STEPS, QUERIES = 20, 20
"""Outer steps of the estimator `discriminant`, and queries a class of each, as in run.py."""
CENTRED = {"shrinkage": 1e6, "stretch": 0.0}
"""Settings with which it subtracts the mean of the training classes, and does nothing else."""


@dataclass(frozen=True)
class Row:
    """A head, and how its map is found.

    Attributes:
        method: registered name of the method that answers.
        discriminant: settings of the estimator `discriminant`; None for features as they are.
        log_penalty: logarithm of the penalty of a head that has one.
    """

    method: str
    discriminant: Mapping[str, float] | None = None
    log_penalty: float = 0.0


ROWS: Mapping[str, Row] = {
    "class means": Row("protonet"),
    "ridge regression": Row("r2d2"),
    "logistic regression": Row("lr-d2"),
    "logistic regression, a third of the penalty": Row("lr-d2", log_penalty=-1.1),
    "logistic regression, three times the penalty": Row("lr-d2", log_penalty=1.1),
    "centred, class means": Row("protonet", CENTRED),
    "centred, logistic regression": Row("lr-d2", CENTRED),
    "discriminant, class means": Row("protonet", {}),
    "discriminant, logistic regression": Row("lr-d2", {}),
    "discriminant, logistic regression, no stretch": Row("lr-d2", {"stretch": 0.0}),
    "discriminant, logistic regression, a third of the shrinkage": Row("lr-d2", {"shrinkage": 1.0}),
    "discriminant, logistic regression, three times the shrinkage": Row("lr-d2", {"shrinkage": 9.0}),
}

BASE, HEAD = "class means", "logistic regression"
"""Baselines of gains: of rows, and of rows of an option."""


OPTIONS: Mapping[str, Mapping[str, str]] = {
    "small photographs": {"last layer alone": "&output=last_layer", "averaged with mirror images": "&flip=true"},
    "spoken digits": {
        "mean over windows": "?pooling=mean",
        "mean and maximum over windows": "?pooling=mean-max",
        "1.28 s": "?seconds=1.28",
        "1.6 s": "?seconds=1.6",
        "2 s": "?seconds=2",
    },
}
"""Options behind an encoder's name, and what they do. Their gains are those of the head of `innerloop new`."""


def main() -> None:
    """Measure all rows of all data sets, and write the results as they come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_arguments(parser)
    given = parser.parse_args()
    torch.set_num_threads(1)
    sets = prepare(RUNS, given.photos, given.clothes, given.digits, given.intents)
    protocol = f"inductive, {TESTING} episodes of unseen classes, 15 queries a class"
    for name in given.only:
        for figures in _measure(sets[name], OPTIONS.get(name, {})):
            write_figures(RESULTS, name, figures, protocol)


def _measure(data: Data, options: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Accuracies of all rows, and their gains; then with one option after the other, which takes longer."""
    source = load_encoded(data.source, CPU, read_encoder(data.encoder))
    rows = {name: row for name, row in ROWS.items() if data.trains or row.discriminant is None}
    values = {name: _accuracies(row, source, data) for name, row in rows.items()}
    figures = {name: _with_gain(found, values[BASE]) for name, found in values.items()}
    yield figures
    for name, option in options.items():
        other = load_encoded(data.source, CPU, read_encoder(data.encoder + option))
        figures[f"option: {name}"] = _with_gain(_accuracies(ROWS[HEAD], other, data), values[HEAD])
        yield figures


def _accuracies(row: Row, source: DataSource, data: Data) -> dict[str, Tensor]:
    """Accuracies of each episode of unseen classes, for each setting."""
    spec = LearnerSpec(
        method=row.method,
        input=InputSpec(source.input.shape),
        max_ways=len(source.train.names),
        train_classes=len(source.train.names),
        backbone="adapter",
        backbone_settings={"normalise": True},
    )
    learner = build_learner(spec)
    params = learner.init(generator_for(0, "ablation"))
    if row.discriminant is not None:
        estimator = build_estimator("discriminant", build_objective(learner), row.discriminant)
        loop = OuterLoop(estimator, params, OptimizerPlan(STEPS, 1e-3, 10.0), seed=0)
        shape = EpisodeShape(len(source.train.names), 1, QUERIES)
        for step in range(STEPS):
            loop.step(source.train.sample(shape, 1, generator_for(0, "ablation", step)), step)
        params = loop.params
    if LOG_PENALTY in params:
        params = {**params, LOG_PENALTY: torch.tensor(row.log_penalty)}
    unseen = splits_of(source, data).unseen
    return {
        key: evaluate(learner, params, unseen, shape, split="", episodes=TESTING).values
        for key, shape in SETTINGS.items()
    }


def _with_gain(found: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Any]:
    return {key: {**summary(values), "gain": summary(values - base[key])} for key, values in found.items()}


if __name__ == "__main__":
    main()
