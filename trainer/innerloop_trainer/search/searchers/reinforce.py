"""A controller that is trained by REINFORCE."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from innerloop_learner.layers import glorot
from innerloop_learner.recurrent import LSTMCell
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Params
from innerloop_trainer.outer_loop.estimators.reinforce import policy_gradient
from innerloop_trainer.outer_loop.optimizer import Optimizer, OptimizerPlan
from innerloop_trainer.search.searchers.searcher import Searcher, Wanted, searchers
from innerloop_trainer.search.spaces import Architecture
from innerloop_trainer.seeds import generator_for

BEGIN = "begin"
"""Name of the controller's first input."""

FRESH_DRAWS = 100
"""Architectures that are drawn in search of one that was not proposed before; then any one is proposed."""


@dataclass(frozen=True)
class ReinforceSettings:
    """How a controller is trained."""

    controller_units: int = setting(32, "units of the LSTM that is the controller", least=1)
    controller_rate: float = setting(0.02, "learning rate of the controller", least=0.0)
    controller_entropy: float = setting(
        0.002, "what a nat of the controller's entropy is worth, in accuracy", least=0.0
    )
    controller_baseline: float = setting(
        0.8, "share of the baseline, a moving mean of scores, that a score keeps", least=0.0, most=1.0
    )


@searchers.register("reinforce")
class ReinforceSearch(Searcher):
    """Writes architectures by a controller that learns (Zoph and Le 2017).

    An LSTM reads the option that was taken last, and gives the logits of the next choice. With the options z_1 to z_n
    of an architecture, its score R, the baseline b (a moving mean of earlier scores) and the entropy H_k of the k-th
    distribution, whose weight is h, the controller with weights w takes a step of Adam along

        (R - b) sum_k grad_w log p(z_k | z_1 .. z_{k-1}; w) + h sum_k grad_w H_k

    after each architecture. What is not wanted, or was proposed before, is drawn again, which the gradient does not
    account for.

    Attributes:
        params: weights of the controller.
    """

    settings_class = ReinforceSettings
    settings: ReinforceSettings

    def __init__(self, wanted: Wanted, seed: int, settings: Any) -> None:
        super().__init__(wanted, seed, settings)
        self._sizes = [len(choice.options) for choice in wanted.space.choices]
        self._cell = LSTMCell("controller", self.settings.controller_units, self.settings.controller_units)
        self.params = self._init(generator_for(seed, "controller"))
        plan = OptimizerPlan(1, self.settings.controller_rate, gradient_clip=10.0, schedule="constant")
        self._optimizer = Optimizer(self.params, plan)
        self._baseline: float | None = None
        self._before = set[Architecture]()

    def _init(self, generator: torch.Generator) -> Params:
        hidden = self.settings.controller_units
        params = {**self._cell.init(generator), BEGIN: glorot(generator, 1, hidden)}
        for place, size in enumerate(self._sizes):
            params[f"embedding{place}"] = glorot(generator, size, hidden)
            params[f"logits{place}.weight"] = torch.zeros(size, hidden)  # all options are alike at first
            params[f"logits{place}.bias"] = torch.zeros(size)
        return params

    def propose(self) -> Architecture:
        """See Searcher.propose."""
        generator = self._generator()
        with torch.no_grad():
            for _ in range(FRESH_DRAWS):
                architecture = self.wanted.first(lambda: self._draw(generator))
                if architecture not in self._before:
                    break
            else:
                architecture = self.wanted.first(lambda: self.wanted.space.draw(generator))
        self._before.add(architecture)
        return architecture

    def learn(self, architecture: Architecture, score: float) -> None:
        """See Searcher.learn."""
        before = score if self._baseline is None else self._baseline
        self._optimizer.begin(0)
        self._optimizer.step(self.gradient(architecture, score - before))
        share = self.settings.controller_baseline
        self._baseline = share * before + (1 - share) * score

    def gradient(self, architecture: Architecture, advantage: float) -> Params:
        """The direction to go against: minus the sum in the class's description, for R - b = `advantage`."""
        params = {name: value.detach().requires_grad_() for name, value in self.params.items()}
        loss = torch.tensor([-advantage])  # how much larger than the baseline, as `policy_gradient` takes it
        with torch.enable_grad():
            logits = list(self.distributions(params, architecture))
            of_logits = [
                policy_gradient(each.detach(), torch.eye(len(each))[[option]], loss, self.settings.controller_entropy)
                for each, option in zip(logits, architecture, strict=True)
            ]
            gradients = torch.autograd.grad(logits, list(params.values()), of_logits, materialize_grads=True)
        return dict(zip(params, gradients, strict=True))

    def _draw(self, generator: torch.Generator) -> Architecture:
        """An architecture, as probable as the controller says."""
        options: list[int] = []
        for logits in self.distributions(self.params, options):
            options += [int(logits.softmax(0).multinomial(1, generator=generator))]  # is read before the next logits
        return tuple(options)

    def distributions(self, params: Params, options: Sequence[int]) -> Iterator[Tensor]:
        """The logits [C] of each choice. The option that is taken in it must be in `options` before the next one."""
        state = self._cell.start(params[BEGIN])
        read = params[BEGIN]  # [1, hidden]
        for place in range(len(self._sizes)):
            state = self._cell.step(params, read, state)
            yield linear(state.hidden[0], params[f"logits{place}.weight"], params[f"logits{place}.bias"])
            read = params[f"embedding{place}"][[options[place]]]
