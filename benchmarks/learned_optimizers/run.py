"""Learned optimizers against hand-tuned ones.

    python benchmarks/learned_optimizers/run.py PATH_OF_OMNIGLOT

Few-shot: the bundles that benchmarks/omniglot trained, on 600 test episodes, against gradient descent with as many
steps on the same weights, offline and through a running server: from the same initialisation with its rate tuned on
validation episodes, and from ANIL's, which was meta-trained for it. Differences are paired by episode.

Transfer (Andrychowicz et al. 2016, section 3.2): an optimizer trained on its own, on networks and for a number of steps
that it never saw. Writes results.json and docs/learned_optimizer.png.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from innerloop import Client
from innerloop_command.server_process import ServerProcess
from innerloop_learner import build_learner
from innerloop_learner.bundle import Bundle, load_bundle, save_bundle
from innerloop_trainer.data import ClassExamples, DataSource, EpisodeShape, load_source
from innerloop_trainer.evaluation import evaluate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine
from served import served_accuracies
from transfer import measure_transfer

ROOT = Path(__file__).resolve().parent.parent.parent
RUNS = ROOT / "runs" / "omniglot"
MODELS = ROOT / "runs" / "learned-optimizer-models"
RESULTS = Path(__file__).with_name("results.json")
METHODS = ("lstm-optimizer", "meta-lstm")
SHAPE = EpisodeShape(5, 1, 15)
EPISODES, TUNING_EPISODES = 600, 200
RATES = tuple(round(10 ** (exponent / 4), 5) for exponent in range(-12, 7))
"""Learning rates from 0.001 to about 30, four to a decade."""


def main() -> None:
    """Measure both and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("omniglot", type=Path, help="folder with images_background.zip and images_evaluation.zip")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = load_source(f"omniglot:{arguments.omniglot}")
    few_shot = {method: _few_shot(method, source) for method in METHODS}
    results = {"few_shot": few_shot, "transfer": measure_transfer()}
    RESULTS.write_text(json.dumps({"machine": describe_machine(), "results": results}, indent=2) + "\n")


def _few_shot(method: str, source: DataSource) -> dict[str, Any]:
    """A learned optimizer against gradient descent from the same initialisation, and from ANIL's."""
    learned = load_bundle(RUNS / f"{method}-5w" / "bundle")
    same = _by_descent(learned, learned, source)
    own = _by_descent(learned, load_bundle(RUNS / "anil-5w" / "bundle"), source)
    bundles = {"learned": learned, "same_initialisation": same, "own_initialisation": own}
    offline = {name: _offline(bundle, source) for name, bundle in bundles.items()}
    served = _served({f"{method}-{name}": bundle for name, bundle in bundles.items()}, source)
    figures: dict[str, Any] = {"steps": learned.learner.default_steps}
    for name, bundle in bundles.items():
        figures[name] = {
            "accuracy": float(offline[name].mean()),
            "served": float(served[f"{method}-{name}"].mean()),
            "settings": dict(bundle.learner.spec.settings),
        }
    for name in ("same_initialisation", "own_initialisation"):
        figures[f"gain_over_{name}"] = {
            "offline": _paired(offline["learned"] - offline[name]),
            "served": _paired(served[f"{method}-learned"] - served[f"{method}-{name}"]),
        }
    print(method, json.dumps(figures, indent=2), flush=True)
    return figures


def _by_descent(learned: Bundle, start: Bundle, source: DataSource) -> Bundle:
    """Gradient descent on the weights that `learned` adapts, as many steps, from `start`, its rate tuned."""
    spec = learned.learner.spec
    method = "anil" if spec.settings["adapts"] == "head" else "maml"
    expected = build_learner(replace(spec, method=method, settings={})).init(torch.Generator().manual_seed(0))
    params = {name: start.params[name] for name in expected}
    steps = learned.learner.default_steps
    candidates = [build_learner(replace(spec, method=method, settings={"steps": steps, "rate": r})) for r in RATES]
    scores = [
        evaluate(learner, params, source.validation, SHAPE, split="validation", episodes=TUNING_EPISODES, seed=1).mean
        for learner in candidates
    ]
    best = candidates[int(np.nanargmax(scores))]
    manifest = replace(learned.manifest, name="descent", learner=best.spec, metrics=())
    return Bundle(manifest, best, params)


def _offline(bundle: Bundle, source: DataSource) -> NDArray[Any]:
    result = evaluate(bundle.learner, bundle.params, source.test, SHAPE, split="test", episodes=EPISODES)
    values: NDArray[Any] = result.values.numpy()
    return values


def _served(bundles: dict[str, Bundle], source: DataSource) -> dict[str, NDArray[Any]]:
    """Accuracies of the same episodes, each bundle served."""
    if not isinstance(source.test, ClassExamples):
        raise TypeError("Omniglot consists of images")
    for name, bundle in bundles.items():
        save_bundle(MODELS / name, replace(bundle.manifest, name=name), bundle.params)
    with ServerProcess(MODELS) as server, Client(server.target, timeout=60) as client:
        return {name: served_accuracies(client, name, source.test, SHAPE, EPISODES) for name in bundles}


def _paired(differences: NDArray[Any]) -> dict[str, float]:
    """Mean difference over episodes with its 95% confidence interval."""
    half = 1.96 * differences.std(ddof=1) / len(differences) ** 0.5
    return {"mean": float(differences.mean()), "confidence_interval": float(half)}


if __name__ == "__main__":
    main()
