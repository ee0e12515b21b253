"""The properties of a model that matter to servers and callers, whatever its method. Needs no PyTorch.

They are made from the learner (`Learner.traits`), kept in the bundle's manifest, and passed on as they are by engines.
"""

from dataclasses import dataclass, replace
from typing import Literal

TaskKind = Literal["classification", "regression"]

WaysCanChange = Literal["no", "fewer", "any"]
"""The numbers of ways that a learner takes besides that of its head: no others, smaller ones, or any."""

MOST_WAYS, MOST_STEPS, MOST_TARGETS = 1_000_000, 100_000, 65_536
"""Bounds of what a model may claim of its tasks: classes or examples, inner steps, and target values per example. They
are far beyond any use; a damaged or hostile manifest must not make a server reserve memory or compute for ever."""


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
        extends: whether an adaptation can learn more examples without the old ones (`Learner.extend`). Older bundles do
            not say so, and cannot.

    Raises:
        ValueError: numbers contradict each other or are absurdly large, as may be in a damaged manifest.
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
    extends: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.default_steps <= self.max_steps <= MOST_STEPS:
            raise ValueError(f"steps lie between 0, default_steps, max_steps and {MOST_STEPS:,}")
        if not (0 <= self.head_ways <= MOST_WAYS and 0 <= self.max_ways <= MOST_WAYS):
            raise ValueError(f"head_ways and max_ways lie between 0 and {MOST_WAYS:,}")
        least, most = (1, MOST_TARGETS) if self.task_kind == "regression" else (0, 0)
        if not least <= self.target_size <= most:
            raise ValueError(f"target_size of {self.task_kind} lies between {least} and {most:,}")

    @property
    def fixed_head(self) -> bool:
        """Whether logits always have `head_ways` columns, even if a task has fewer ways."""
        return self.ways_can_change != "any"

    def limited(self, max_ways: int, max_steps: int) -> "Traits":
        """A copy in which requests may ask for no more than these ways and steps."""
        return replace(
            self,
            max_ways=min(self.max_ways, max_ways),
            max_steps=min(self.max_steps, max_steps),
            default_steps=min(self.default_steps, max_steps),
        )
