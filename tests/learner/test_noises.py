"""Noise in the inner loop: its equation worked out by hand, its random numbers, and who takes it."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from by_hand import vector_case
from cases import Case
from torch import Tensor

from innerloop_learner import InputSpec, LearnerSpec, Params, build_learner
from innerloop_learner.draws import example_keys, keys_of_sample, normal_draws
from innerloop_learner.learner import methods
from innerloop_learner.objectives import Stage
from innerloop_learner.settings import SettingsError

STEPS, SAMPLES, RATE, WIDTH = 2, 3, 0.1, 10


def noisy_case(noise: str) -> Case:
    plain = vector_case("maml", steps=STEPS, rate=RATE).spec
    return Case(replace(plain, backbone_settings={"widths": [WIDTH], "noise": noise, "noise_samples": SAMPLES}))


@pytest.mark.parametrize("noise", ["meta_dropout", "fixed"])
def test_factors_are_random_while_adapting_and_known_for_queries(noise: str) -> None:
    case = noisy_case(noise)
    params, episodes = case.params(), case.episodes()
    support = episodes.support
    keys = example_keys(support.x, support.mask)
    with torch.no_grad():
        state = case.learner.adapt(params, support).state
        logits = case.learner.predict(params, state, episodes.query)

    def outputs(weights: Params, x: Tensor, e: Tensor | float) -> Tensor:
        strength = 0.0
        if noise == "meta_dropout":
            strength = x @ params["noise.linear0.weight"].T + params["noise.linear0.bias"]
        factors = (1 + (strength + torch.as_tensor(e, dtype=x.dtype)).exp()).log()
        y = ((x @ weights["linear0.weight"].T + weights["linear0.bias"]) * factors).relu()
        return y @ weights["head.weight"].T + weights["head.bias"]

    for task in range(3):
        names = ["linear0.weight", "linear0.bias", "head.weight", "head.bias"]
        weights = {name: params[name].clone().requires_grad_() for name in names}
        for step in range(STEPS):
            losses = []
            for sample in range(SAMPLES):
                like = torch.empty(3, support.x.shape[1], WIDTH, dtype=torch.float64)
                e = normal_draws(params["noise.table"], keys_of_sample(keys, step, sample), "linear0", like)[task]
                losses.append(F.cross_entropy(outputs(weights, support.x[task], e), support.y[task]))
            gradients = torch.autograd.grad(torch.stack(losses).mean(), list(weights.values()))
            weights = {n: w - RATE * g for (n, w), g in zip(weights.items(), gradients, strict=True)}
        expected = outputs(weights, episodes.query.x[task], 0.0)
        torch.testing.assert_close(logits[task, :, :3], expected.detach())


def test_the_inner_loop_leaves_the_noise_as_it_is_and_the_query_loss_learns_it() -> None:
    case = noisy_case("meta_dropout")
    params, episodes = case.params(), case.episodes()
    assert not [name for name in case.learner.adapt(params, episodes.support).state if "noise" in name]
    learned = {name: value.requires_grad_() for name, value in params.items() if name not in case.learner.buffers()}
    case.objective({**params, **learned}, episodes, Stage()).loss.backward()
    assert learned["noise.linear0.weight"].grad.abs().max() > 1e-4


def test_noise_is_standard_normal_and_independent_of_every_other_draw() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(2**16, generator=generator)
    tasks, examples, outputs = 3, 4, 2000
    x = torch.rand(tasks, examples, 6, generator=generator)
    x[2, 0] = x[0, 0]  # the same example among others
    keys, like = example_keys(x, torch.ones(tasks, examples, dtype=torch.bool)), torch.empty(tasks, examples, outputs)
    draws = [
        normal_draws(table, keys_of_sample(keys, step, sample), layer, like)
        for step in range(2)
        for sample in range(2)
        for layer in ("conv0", "conv1")
    ]
    every = torch.cat(draws).flatten(0, 1)  # [draws * tasks * examples, outputs]
    assert every.mean().abs() < 0.02
    assert every.std() == pytest.approx(1, abs=0.02)
    others = torch.corrcoef(every) - torch.eye(len(every))
    assert others.abs().max() < 5 / outputs**0.5


def test_equal_examples_of_a_task_have_the_same_noise_and_rounding_does_not_change_it() -> None:
    x = torch.rand(1, 5, 300, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x[0, 4] = x[0, 1]
    mask = torch.ones(1, 5, dtype=torch.bool)
    keys = example_keys(x, mask)
    assert keys.unique().numel() == 4
    assert torch.equal(keys, example_keys(x.float(), mask))
    assert torch.equal(keys, example_keys(x + 1e-9, mask))


@pytest.mark.parametrize("method", ["fomaml", "imaml", "protonet", "reptile"])
def test_methods_that_could_not_learn_noise_refuse_it(method: str) -> None:
    spec = LearnerSpec(method, InputSpec((6,)), backbone="mlp", backbone_settings={"noise": "meta_dropout"})
    with pytest.raises(SettingsError, match=f"{method} takes no noise .* choose maml, anil, boil or meta-sgd"):
        build_learner(spec)


def test_the_message_names_every_method_that_takes_noise() -> None:
    assert [name for name in methods if methods[name].takes_noise] == ["anil", "boil", "maml", "meta-sgd"]
