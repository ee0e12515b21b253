"""The properties of a model that matter to servers and callers, whatever its method. Needs no PyTorch.

They are made from the learner (`Learner.traits`), kept in the bundle's manifest, and passed on as they are by engines.
"""

from dataclasses import dataclass, replace
from typing import Literal

TaskKind = Literal["classification", "regression"]

WaysCanChange = Literal["no", "fewer", "any"]
"""The numbers of ways that a learner takes besides that of its head: no others, smaller ones, or any."""


@dataclass(frozen=True)
class Traits:
    """The properties of a model that matter to servers and callers.

    Attributes:
        task_kind: classification or regression.
        ways_can_change: numbers of ways other than `head_ways` that it takes: "no" others, "fewer", or "any".
        order_matters: whether the order of the support set changes the answer.
        gradients_at_serving: whether adapting computes gradients.
        default_steps: inner steps taken when a request names none; zero for methods without steps.
        max_steps: most inner steps that a request may ask for; zero for methods without steps.
        head_ways: the ways it was built for, which is the width of a fixed head (zero for regression).
        max_ways: most ways that a request may have (zero for regression).
        target_size: target values per example (zero for classification).
    """

    task_kind: TaskKind
    ways_can_change: WaysCanChange
    order_matters: bool
    gradients_at_serving: bool
    default_steps: int
    max_steps: int
    head_ways: int
    max_ways: int
    target_size: int

    @property
    def fixed_head(self) -> bool:
        """Whether logits always have `head_ways` columns, even if a task has fewer ways."""
        return self.ways_can_change != "any"

    def limited(self, max_ways: int, max_steps: int) -> "Traits":
        """A copy in which requests may ask for no more than these ways and steps."""
        return replace(self, max_ways=min(self.max_ways, max_ways), max_steps=min(self.max_steps, max_steps))
