"""Feature-wise transformation layers."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.gradient_learner import GradientLearner
from innerloop_learner.learner import Learner
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Params
from innerloop_learner.transfer import sent
from innerloop_learner.transformations.transformation import STRENGTHS, Transformation, transformations


@dataclass(frozen=True)
class FeatureWiseSettings:
    """Strengths of the transformation, where learning begins if they are learned."""

    scale_deviation: float = setting(0.3, "standard deviation of the factors of channels", least=1e-4)
    shift_deviation: float = setting(0.5, "standard deviation of the summands of channels", least=1e-4)


@transformations.register("feature_wise")
class FeatureWise(Transformation):
    """Scales and shifts what norms give at random (Tseng, Lee, Huang and Yang 2020, equations 2 and 3).

    With the output z of a norm l for channel c of a task, support set and queries alike:

        z'_lc = g_lc z_lc + b_lc,   g_lc ~ N(1, softplus(p_lc)^2),   b_lc ~ N(0, softplus(q_lc)^2)

    Since z = w x + v with the norm's own scale and shift, it is the norm with the scale g w and the shift g v + b. So
    tasks get norms of their own, and no layer is added. p and q, one number per channel each, are the strengths.

    Raises:
        ValueError: the backbone has no norms with scale and shift, or the inner loop changes these.
    """

    settings_class = FeatureWiseSettings
    settings: FeatureWiseSettings

    def __init__(self, learner: Learner, settings: Any) -> None:
        super().__init__(learner, settings)
        own = learner.backbone.init(torch.Generator())
        names = [norm.name for norm in learner.backbone.norms]
        self._channels = {
            name: len(own[f"{name}.weight"]) for name in names if {f"{name}.weight", f"{name}.bias"} <= own.keys()
        }
        if not self._channels:
            raise ValueError(
                f"the backbone {learner.spec.backbone} has no norms with scale and shift that it could change; choose "
                "one that has, such as conv4"
            )
        if isinstance(learner, GradientLearner) and learner.adapts_body:
            raise ValueError(
                f"the inner loop of {learner.info.name} changes the norms itself; choose a method that leaves them as "
                "they are, such as protonet, r2d2 or anil"
            )

    def init(self) -> Params:
        """See Transformation.init: p and q, [C] of each norm."""
        deviations = {"scale": self.settings.scale_deviation, "shift": self.settings.shift_deviation}
        return {
            f"{STRENGTHS}{name}.{part}": torch.full((channels,), math.log(math.expm1(deviation)))
            for name, channels in self._channels.items()
            for part, deviation in deviations.items()
        }

    def transformed(self, params: Params, tasks: int, generator: torch.Generator) -> Params:
        """See Transformation.transformed: scale and shift [T, C] of each norm."""

        def drawn(strength: Tensor) -> Tensor:
            noise = sent({"noise": torch.randn(tasks, len(strength), generator=generator)}, strength.device)["noise"]
            return noise.to(strength.dtype) * F.softplus(strength)

        changed = {}
        for name in self._channels:
            factor = 1 + drawn(params[f"{STRENGTHS}{name}.scale"])
            summand = drawn(params[f"{STRENGTHS}{name}.shift"])
            changed[f"{name}.weight"] = factor * params[f"{name}.weight"]
            changed[f"{name}.bias"] = factor * params[f"{name}.bias"] + summand
        return changed
