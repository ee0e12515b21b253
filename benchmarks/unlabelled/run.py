"""Learning to learn characters without one label, against learning with all of them.

    python benchmarks/unlabelled/run.py OMNIGLOT [--runs NAME ...]

Trains small models on Omniglot (kept in runs/unlabelled/ and resumed) and measures them on characters that none of them
has seen. Runs of one method take equally many outer steps on equally many tasks of one shape, whether classes are
characters (labels) or single images and their augmentations (no labels); parameters are chosen on validation tasks of
the same kind, so that without labels none is used. Controls: the same without augmentations, where a query is the very
image of the support set, and parameters that nothing was learned into. Accuracies are inductive, over the same 600
episodes for everybody, and differences are those of one episode after the other. Writes results.json.
"""

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from innerloop_learner.bundle import load_bundle
from innerloop_trainer.config import TrainingConfig
from innerloop_trainer.data import DataSource, EpisodeShape, load_source
from innerloop_trainer.evaluation import confidence_interval, evaluate
from innerloop_trainer.plan import make_plan
from innerloop_trainer.runs.folder import RunFolder
from innerloop_trainer.runs.log import read_rows
from innerloop_trainer.runs.prepare import prepare
from innerloop_trainer.seeds import generator_for

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine

RUNS = Path(__file__).resolve().parent.parent.parent / "runs" / "unlabelled"
RESULTS = Path(__file__).with_name("results.json")
CPU = torch.device("cpu")
EPISODES = 600
SHAPES = {"5w1s": EpisodeShape(5, 1, 15), "5w5s": EpisodeShape(5, 5, 15)}

COMMON = TrainingConfig(
    "protonet",
    "omniglot",
    backbone_settings={"width": 32, "downsample": "stride"},
    validation_episodes=50,
)
PROTONET = replace(COMMON, iterations=600, validate_every=200, train_ways=40, queries=3, meta_batch=1)
MAML = replace(
    COMMON,
    method="maml",
    iterations=800,
    validate_every=200,
    meta_batch=4,
    queries=3,
    steps=1,
    learning_rate=0.002,
    settings={"rate": 0.4},
)
AUGMENTED = "affine,shift,elastic,stroke"


@dataclass(frozen=True)
class Run:
    """One way to train.

    Attributes:
        config: its configuration.
        compared: name of the run that its accuracies are compared with.
        start: name of the run whose parameters it starts from; empty for random ones.
        trained: whether it is trained at all.
        steps: inner steps when it is measured; None for as many as in training.
    """

    config: TrainingConfig
    compared: str
    start: str = ""
    trained: bool = True
    steps: int | None = None


def _gradient(config: TrainingConfig, **changes: Any) -> Run:
    return Run(config, "maml, labels", steps=3, **changes)


RUN = {
    "protonet, labels": Run(PROTONET, "protonet, labels"),
    "protonet, labels, augmented": Run(replace(PROTONET, augment=AUGMENTED), "protonet, labels"),
    "protonet, no labels": Run(replace(PROTONET, unlabelled=True), "protonet, labels"),
    "protonet, no labels, not augmented": Run(replace(PROTONET, unlabelled=True, augment="none"), "protonet, labels"),
    "protonet, untrained": Run(PROTONET, "protonet, labels", trained=False),
    "simclr": Run(
        replace(COMMON, method="simclr", iterations=600, validate_every=200, train_ways=80), "protonet, labels"
    ),
    "maml, labels": _gradient(MAML),
    "maml, no labels": _gradient(replace(MAML, unlabelled=True)),
    "maml, no labels, not augmented": _gradient(replace(MAML, unlabelled=True, augment="none")),
    "maml, untrained": _gradient(MAML, trained=False),
    "maml, no labels, from simclr": _gradient(replace(MAML, unlabelled=True), start="simclr"),
}


def main() -> None:
    """Train, measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("omniglot", help="folder with the original zips")
    parser.add_argument("--runs", nargs="+", choices=RUN, default=list(RUN), help="these only, without results.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = load_source(f"omniglot:{arguments.omniglot}")
    for name in arguments.runs:
        if RUN[name].trained:
            _train(name, source)
        _measure(name, source)
    if arguments.runs != list(RUN):
        return
    accuracies = {name: load_file(_measured(name)) for name in RUN}
    results = {name: {**_training(name), **_figures(name, accuracies)} for name in RUN}
    content = {"machine": describe_machine(), "episodes": EPISODES, "results": results}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")


def _folder(name: str) -> RunFolder:
    return RunFolder(RUNS / name.replace(", ", "-").replace(" ", "-"))


def _train(name: str, source: DataSource) -> None:
    """Train a run, or go on with it where it was interrupted; a finished one stays as it is."""
    run, folder = RUN[name], _folder(name)
    start = _folder(run.start).path if run.start else None
    training = prepare(run.config, folder, CPU, init=start, resume=folder.exists, source=source).training
    if not training.finished:
        training.run(lambda _: None, lambda: False)
    print(f"{name}: {training.progress.seconds:.0f} s", flush=True)


def _measured(name: str) -> Path:
    """The file beside a run that keeps its accuracies in the episodes [E], by shape."""
    return _folder(name).path / "accuracies.safetensors"


def _measure(name: str, source: DataSource) -> None:
    """Measure a run, unless it is measured already."""
    run = RUN[name]
    if _measured(name).is_file():
        return
    if run.trained:
        bundle = load_bundle(_folder(name).bundle)
        learner, params = bundle.learner, bundle.params
    else:
        plan = make_plan(run.config, source, CPU)
        learner, params = plan.learner, plan.init(generator_for(run.config.seed, "initialisation"))
        params = {key: value for key, value in params.items() if key in learner.init(torch.Generator())}
    accuracies = {
        each: evaluate(learner, params, source.test, shape, split="test", episodes=EPISODES, steps=run.steps).values
        for each, shape in SHAPES.items()
    }
    _measured(name).parent.mkdir(parents=True, exist_ok=True)
    save_file(accuracies, _measured(name))


def _training(name: str) -> dict[str, Any]:
    """What a run was trained with."""
    if not RUN[name].trained:
        return {"outer_steps": 0}
    folder = _folder(name)
    config, rows = folder.load_config(), read_rows(folder.log)
    return {
        "outer_steps": rows[-1].iteration,
        "best_step": max(rows, key=lambda row: row.validation).iteration,
        "tasks_per_step": config.meta_batch,
        "train_ways": config.train_ways,
        "queries": config.queries,
        "augment": config.augment,
        "starts_from": RUN[name].start or None,
    }


def _figures(name: str, accuracies: dict[str, dict[str, Tensor]]) -> dict[str, Any]:
    own, other = accuracies[name], accuracies[RUN[name].compared]
    return {
        "accuracy": {shape: _summary(own[shape]) for shape in own},
        "compared": RUN[name].compared,
        "difference": {shape: _summary(own[shape] - other[shape]) for shape in own},
    }


def _summary(values: Tensor) -> dict[str, float]:
    return {"mean": values.mean().item(), "confidence_interval": confidence_interval(values)}


if __name__ == "__main__":
    main()
