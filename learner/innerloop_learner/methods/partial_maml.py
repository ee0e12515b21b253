"""MAML whose inner loop adapts some blocks only, for some steps, both of them learned."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from innerloop_learner.backbones.backbone import block_number
from innerloop_learner.learner import Learner, methods
from innerloop_learner.methods.maml import MAML, MAMLSettings
from innerloop_learner.settings import SettingsError, setting
from innerloop_learner.spec import LearnerSpec
from innerloop_learner.state import STATISTICS, prefixed
from innerloop_learner.tasks import Adapted, Params, Support
from innerloop_learner.update_rules.update_rule import Step, Updated, UpdateRule

CHOICE = "choice."
STEPS = CHOICE + "steps"
"""Prefix of the names of logits of choices, and the name of those of the number of steps."""

HEAD = "head"
"""Name of the block that the last layer makes."""

ADAPT = 1
"""Option of a block that adapts; option 0 freezes it."""


@dataclass(frozen=True)
class PartialMAMLSettings(MAMLSettings):
    """Settings of MAML, and what adapts."""

    adapts: Sequence[str] = setting(
        (), "blocks that adapt, such as block0 and head; left out, training chooses them, and 1 to `steps` steps"
    )


@methods.register("partial-maml")
class PartialMAML(MAML):
    """MAML that learns which blocks adapt, and for how long (Shen et al. 2021).

    With choices z_l of 0 or 1 for each block l, and n of 1 to K, whose logits are meta-parameters:

        w_{l,k+1} = w_{l,k} - z_l [k < n] a * grad_l L_S(w_k),      z_l, n = argmax of their logits

    MAML (z = 1), ANIL (z = 1 for the head alone) and BOIL (z = 0 for the head alone) are among the choices. If no block
    is chosen the head adapts, since nothing would be learned from the support set. Shen et al. search the choice by
    evolution for one pre-trained network; here the estimator `reinforce` learns it along with the initialisation, and
    bundles hold a learner that is as cheap as what was chosen.

    A block is all layers of one number, such as conv0 and norm0 (`block0`), or a layer without a number (`head`).

    Attributes:
        frozen_blocks: number of blocks below the first one that adapts, which are computed once and not in every step;
            zero where the head adapts alone, whose features are computed once by all methods, or where blocks are
            chosen. Results are the same with zero.

    Raises:
        SettingsError: there is no block of a name in `adapts`.
    """

    info = replace(
        MAML.info,
        name="partial-maml",
        family="choices",
        paper="Shen, Liu, Qin, Savvides, Cheng: Partial Is Better Than All: Revisiting Fine-tuning Strategy for "
        "Few-shot Learning. AAAI 2021",
    )
    settings_class = PartialMAMLSettings
    settings: PartialMAMLSettings
    weighs_examples = False  # it learns what adapts, and nothing else besides the initialisation
    takes_noise = False
    augments_support = False
    frozen_blocks = 0

    def __init__(self, spec: LearnerSpec) -> None:
        super().__init__(spec)
        self._blocks = sorted({block_of(name) for name in self._body} | {HEAD})
        chosen = set(self.settings.adapts)
        unknown = sorted(chosen - {*self._blocks})
        if unknown:
            raise SettingsError(f"{self.info.name}: there is no {unknown[0]} to adapt, only {', '.join(self._blocks)}")
        if chosen:
            self._body = {name for name in self._body if block_of(name) in chosen}
            self.adapts_body, self.adapts_head = bool(self._body), HEAD in chosen
            self.frozen_blocks = self.backbone.blocks_below(self._body) if self.adapts_body else 0
        else:
            self.rule = ChosenUpdates(self.rule, self._blocks, self.settings.steps)

    def adapt(self, params: Params, support: Support, steps: int | None = None) -> Adapted:
        """See Learner.adapt; blocks below the first one that adapts are computed once, and not in every step."""
        divided = self.backbone.divided(self.frozen_blocks) if self.frozen_blocks else None
        if divided is None:
            return super().adapt(params, support, steps)
        lower, upper = divided
        twin = copy.copy(self)
        twin.backbone, twin.frozen_blocks = upper, 0
        frozen = lower.apply(params, support.x, self.example_weights(support))
        adapted = twin.adapt(params, replace(support, x=frozen.values), steps)
        return adapted._replace(state={**adapted.state, **prefixed(STATISTICS, frozen.statistics)})

    def choices(self) -> frozenset[str]:
        """See Learner.choices."""
        return self.rule.names if isinstance(self.rule, ChosenUpdates) else frozenset()

    def settled(self, params: Params) -> Learner:
        """See Learner.settled; blocks that are frozen take no part in adapting, and are not in task states."""
        if not isinstance(self.rule, ChosenUpdates):
            return self
        adapts = [block for block, moves in self.rule.moving(params).items() if moves]
        settings = {**self.spec.settings, "adapts": adapts, "steps": int(self.rule.steps(params))}
        return type(self)(replace(self.spec, settings=settings))


class ChosenUpdates(UpdateRule):
    """An update rule that changes the weights of chosen blocks in chosen steps, and leaves others as they are.

    Its parameters are the logits of the choices: [2] for each block, and [steps]. In training they may be one per task,
    [T, 2] and [T, steps], and so may the choices.

    Args:
        rule: update rule of the weights that change.
        blocks: names of all blocks.
        steps: most steps to choose.
    """

    def __init__(self, rule: UpdateRule, blocks: Sequence[str], steps: int) -> None:
        self._rule, self._blocks, self._most = rule, blocks, steps

    @property
    def names(self) -> frozenset[str]:
        """Names of the logits."""
        return frozenset({*(CHOICE + block for block in self._blocks), STEPS})

    def init(self, generator: torch.Generator, weights: Params) -> Params:
        """See UpdateRule.init; all options are alike at first."""
        logits = {name: torch.zeros(self._most if name == STEPS else 2) for name in sorted(self.names)}
        return {**self._rule.init(generator, weights), **logits}

    def start(self, params: Params, weights: Params) -> Params:
        """See UpdateRule.start."""
        return self._rule.start(params, weights)

    def moving(self, params: Params) -> dict[str, Tensor]:
        """Whether each block adapts, [] or [T] bool."""
        chosen = {block: params[CHOICE + block].argmax(-1) == ADAPT for block in self._blocks}
        return {**chosen, HEAD: chosen[HEAD] | ~torch.stack([*chosen.values()]).any(0)}

    def steps(self, params: Params) -> Tensor:
        """Number of steps that change weights, [] or [T] int64."""
        return params[STEPS].argmax(-1) + 1

    def update(self, params: Params, state: Params, step: Step) -> Updated:
        """See UpdateRule.update."""
        updated, after = self._rule.update(params, state, step)
        goes_on, moving = step.index < self.steps(params), self.moving(params)

        def changed(name: str, weight: Tensor) -> Tensor:
            changes = goes_on & moving[block_of(name)]
            return torch.where(changes.view(*changes.shape, *[1] * (weight.dim() - 1)), updated[name], weight)

        return Updated({name: changed(name, weight) for name, weight in step.weights.items()}, after)


def block_of(name: str) -> str:
    """The block that a weight belongs to, by its name.

    >>> [block_of(name) for name in ("conv0.weight", "norm0.bias", "head.weight")]
    ['block0', 'block0', 'head']
    """
    number = block_number(name)
    return name.partition(".")[0] if number is None else f"block{number}"
