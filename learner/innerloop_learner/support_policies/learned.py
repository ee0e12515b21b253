"""A policy whose strengths are meta-learned."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from innerloop_learner.augmentations import Augmentation, Strength, Strengths
from innerloop_learner.settings import declared
from innerloop_learner.support_policies.support_policy import SupportPolicy, support_policies
from innerloop_learner.tasks import Params

COUNT = "policy.count"
"""Name of the parameter from which the count of a copy follows."""

GAIN = 10.0
"""Factor of parameters. Strengths change by as much as is useful within the outer steps that a backbone needs, where
with 1 they had barely begun."""

MOST = 2.0
"""Largest strength that can be learned, in parts of the one given, and largest count of a copy."""


@support_policies.register("learned")
class LearnedPolicy(SupportPolicy):
    """Copies whose strengths the loss of the queries learns.

    It learns what copies count, too, and both through the adaptation.

    With parameters p, numbers u that the content of the support set draws, and the augmentations A of the setting
    `augment` with strengths g there, at most m:

        s = min(2 g, m) sigmoid(10 p_s),   s = g at first
        c = 2 sigmoid(10 p_c),             c = 1 at first
        (x, y) weighs 1 / (1 + k c),   (A(x; s u_j), y) weighs c / (1 + k c)
        p* = argmin  E_task L_Q(adapt(all of these; p)),   j = 1 .. k

    As with the noise of Meta-dropout (Lee et al. 2020), strengths are meta-parameters that the loss of held-out
    examples trains, and as in Faster AutoAugment (Hataya et al. 2020) changes are differentiable in them: what moves
    points is interpolated, erasing covers pixels in part, and probabilities are relaxed (`occurrence`). A copy that
    helps nobody can count less, c -> 0, which stands for the probability that a policy is applied. A strength that is
    0, or never learned, stays as it is.
    """

    def __init__(self, shape: tuple[int, ...], settings: Any) -> None:
        super().__init__(shape, settings)
        self._largest = {
            _parameter(name, strength): _largest(part, name, strength)
            for name, part in self._parts
            for strength, given in part.strengths.items()
            if given and strength not in part.never_learned
        }

    def init(self) -> Params:
        """See SupportPolicy.init."""
        starts = {
            _parameter(name, strength): float(given) / self._largest[_parameter(name, strength)]
            for name, part in self._parts
            for strength, given in part.strengths.items()
            if _parameter(name, strength) in self._largest
        }
        starts[COUNT] = 1 / MOST
        return {name: torch.tensor(math.log(share / (1 - share)) / GAIN) for name, share in starts.items()}

    def strengths(self, params: Params) -> dict[str, Strengths]:
        """See SupportPolicy.strengths."""
        return {name: self._of_part(params, name, part.strengths) for name, part in self._parts}

    def _of_part(self, params: Params, name: str, given: Strengths) -> Mapping[str, Strength]:
        learned = {
            strength: self._largest[key] * (GAIN * params[key]).sigmoid()
            for strength in given
            if (key := _parameter(name, strength)) in self._largest
        }
        return {**given, **learned}

    def count(self, params: Params) -> Strength:
        """See SupportPolicy.count."""
        return MOST * (GAIN * params[COUNT]).sigmoid()


def _parameter(augmentation: str, strength: str) -> str:
    return f"policy.{augmentation}.{strength}"


def _largest(part: Augmentation, name: str, strength: str) -> float:
    """The largest value that a strength can learn.

    Raises:
        ValueError: it begins there, where it can't learn.
    """
    given, most = float(part.strengths[strength]), declared(part.strengths_class, strength).get("most")
    if most is not None and given >= most:
        raise ValueError(f"{name}?{strength}={given:g} is the most there is; a learned strength begins below it")
    return MOST * given if most is None else min(MOST * given, most)
