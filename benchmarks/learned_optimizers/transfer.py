"""Does an optimizer trained on one network optimize others?"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from training import train

from innerloop_learner import Params, Support
from innerloop_learner.backbones.backbone import build_backbone
from innerloop_learner.bundle import load_bundle
from innerloop_learner.heads import BIAS, WEIGHT, LinearHead
from innerloop_learner.inner_loop import inner_loop, spread
from innerloop_learner.losses import classification_loss
from innerloop_learner.update_rules import update_rules
from innerloop_trainer.data import EpisodeShape, load_source
from innerloop_trainer.seeds import generator_for

ROOT = Path(__file__).resolve().parent.parent.parent
RUNS = ROOT / "runs" / "lstm-optimizer-alone"
PICTURE = ROOT / "docs" / "learned_optimizer.png"
SHAPE = EpisodeShape(ways=10, shots=5, queries=5)
TRAINED_STEPS, STEPS, TASKS = 100, 200, 16
METHOD = "lstm-optimizer"
TRAIN = [
    "--data", "glyphs", "--ways", "10", "--shots", "5", "--queries", "5",
    "--backbone", "mlp", "--backbone-set", "widths=[20]", "--backbone-set", "activation=sigmoid",
    "--set", "initialisation=random", "--set", "rate=0.1", "--set", "max_steps=100", "--meta-batch", "1",
    "--validation-episodes", "20", "--test-episodes", "20",
]  # fmt: skip
STAGES = {
    20: ["--set", "truncate=10", "--iterations", "600", "--learning-rate", "0.003", "--validate-every", "100"],
    TRAINED_STEPS: [
        "--set", "truncate=20", "--iterations", "150", "--learning-rate", "0.001", "--validate-every", "50",
    ],
}  # fmt: skip
"""Training stages by number of steps, each starting from the one before: an optimizer trained on few steps only goes
astray after them."""

NETWORKS: dict[str, dict[str, Any]] = {
    "20 sigmoid units (trained on)": {"widths": [20], "activation": "sigmoid"},
    "40 sigmoid units": {"widths": [40], "activation": "sigmoid"},
    "two layers of 20 sigmoid units": {"widths": [20, 20], "activation": "sigmoid"},
    "20 ReLU units": {"widths": [20], "activation": "relu"},
}
HAND_MADE: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": torch.optim.SGD,
    "RMSprop": torch.optim.RMSprop,
    "Adam": torch.optim.Adam,
}
RATES = tuple(round(10 ** (exponent / 3), 5) for exponent in range(-10, 4))
"""Learning rates from 0.0005 to 10, three to a decade; each optimizer gets the one with the lowest last loss on other
tasks."""

Loss = Callable[[Params], Tensor]


def measure_transfer() -> dict[str, Any]:
    """Train the optimizer if it is not there yet, and compare it on every network."""
    bundle = load_bundle(_trained() / "bundle")
    learned = {name: value for name, value in bundle.params.items() if name.startswith("rule.")}
    settings = bundle.learner.spec.settings
    rule = update_rules["lstm"](rate=settings["rate"], hidden=settings["hidden"])
    curves: dict[str, dict[str, Tensor]] = {}
    results: dict[str, Any] = {
        "trained_steps": TRAINED_STEPS,
        "steps": STEPS,
        "tasks": TASKS,
        "options": [METHOD, *TRAIN],
        "stages": STAGES,
    }
    for title, network in NETWORKS.items():
        tuning, testing = _problem(network, seed=1), _problem(network, seed=0)
        with torch.no_grad():
            start, loss = testing
            result = inner_loop(lambda _, w, __, loss=loss: loss(w), start, rule, learned, STEPS, TASKS, order=1)  # type: ignore[misc]
        curves[title] = {"learned": result.losses}
        rates = {}
        for name, make in HAND_MADE.items():
            last = [_descend(*tuning, make, rate)[:, -1].mean().nan_to_num(torch.inf).item() for rate in RATES]
            rates[name] = RATES[last.index(min(last))]
            curves[title][name] = _descend(*testing, make, rates[name])
        results[title] = {"rates": rates, **{name: _figures(values) for name, values in curves[title].items()}}
        print(title, json.dumps(results[title]), flush=True)
    _draw(curves)
    return results


def _trained() -> Path:
    """Folder of the run of the last stage; those not there yet are trained."""
    before: Path | None = None
    for steps, options in STAGES.items():
        folder = RUNS / f"{steps}-steps"
        train(folder, METHOD, [*TRAIN, "--steps", str(steps), *options], start=before)
        before = folder
    return folder


def _problem(network: Mapping[str, Any], seed: int) -> tuple[Params, Loss]:
    """Random initial weights of a network, and the loss [T] of tasks of unseen characters."""
    source = load_source("glyphs")
    support = source.test.sample(SHAPE, TASKS, generator_for(seed, "transfer")).support
    backbone = build_backbone("mlp", source.input.shape, network)
    head = LinearHead(backbone.features, SHAPE.ways)
    generator = torch.Generator().manual_seed(seed)

    def loss(weights: Params, support: Support = support) -> Tensor:
        features = backbone.apply(weights, support.x, support.mask).values
        return classification_loss(head.apply(weights, features), support.y, support.mask)

    weights = {**backbone.init(generator), **head.init(generator)}
    assert {WEIGHT, BIAS} <= weights.keys()
    return weights, loss


def _descend(start: Params, loss: Loss, make: Callable[..., torch.optim.Optimizer], rate: float) -> Tensor:
    """Losses [T, STEPS] of an optimizer of PyTorch's; each works on every weight by itself, so tasks stay apart."""
    weights = {name: value.clone().requires_grad_() for name, value in spread(start, TASKS).items()}
    optimizer = make(list(weights.values()), lr=rate)
    history = []
    for _ in range(STEPS):
        losses = loss(weights)
        history.append(losses.detach())
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
    return torch.stack(history, 1)


def _figures(losses: Tensor) -> dict[str, float]:
    """Mean loss where training of the optimizer ended, at the end, and 95% confidence interval there."""
    last = losses[:, -1]
    half = 1.96 * last.std().item() / len(last) ** 0.5
    at_trained = losses[:, TRAINED_STEPS - 1].mean().item()
    return {"after_trained_steps": at_trained, "last": last.mean().item(), "confidence_interval": half}


def _draw(curves: Mapping[str, Mapping[str, Tensor]]) -> None:
    figure = Figure(figsize=(3.2 * len(curves), 2.8), layout="constrained")
    axes = figure.subplots(1, len(curves), sharey=True)
    for axis, (title, by_optimizer) in zip(axes, curves.items(), strict=True):
        for name, losses in by_optimizer.items():
            axis.plot(losses.mean(0), label=name, linewidth=2 if name == "learned" else 1)
        axis.axvline(TRAINED_STEPS, color="0.7", linestyle=":")
        axis.set(title=title, xlabel="steps", yscale="log")
        axis.title.set_fontsize(9)
    axes[0].set_ylabel("loss")
    axes[0].legend(fontsize=7)
    figure.savefig(PICTURE, dpi=90)
