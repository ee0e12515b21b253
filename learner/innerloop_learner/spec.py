"""The description of a learner as plain data, from which a bundle's learner is built again."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from innerloop_learner.settings import is_finite, with_settings
from innerloop_learner.traits import TaskKind

MOST_ELEMENTS = 2**26
"""Most elements of one example: 256 MiB as float32."""

InputType = Literal["uint8", "float32"]
ClassBalance = Literal["equal", "proportional"]
"""Weights of the classes of a support set: equal, or proportional to their numbers of examples."""


@dataclass(frozen=True)
class InputSpec:
    """Inputs of a learner.

    Attributes:
        shape: shape of one example; for images (channels, height, width).
        dtype: element type of the training data: "uint8" for images, "float32" otherwise.
        mean: mean to subtract after scaling, one value or one per channel.
        std: standard deviation to divide by, one value or one per channel.
        scale: factor that takes raw elements to the range of `mean` and `std` (1/255 for uint8 images).

    Raises:
        ValueError: values contradict each other, as may be in a damaged manifest.
    """

    shape: tuple[int, ...]
    dtype: InputType = "float32"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.shape or any(type(size) is not int or size < 1 for size in self.shape):
            raise ValueError(f"an input's shape is made of whole numbers from 1 up, not {self.shape}")
        if self.size > MOST_ELEMENTS:
            raise ValueError(f"an input has at most {MOST_ELEMENTS:,} elements, not {self.size:,}")
        if not all(is_finite(value) for value in (*self.mean, *self.std, self.scale)):
            raise ValueError("mean, std and scale are finite numbers")
        if self.dtype not in get_args(InputType):
            raise ValueError(f"an input's dtype is one of {', '.join(get_args(InputType))}, not {self.dtype!r}")
        if any(len(values) not in (1, self.shape[0]) for values in (self.mean, self.std)) or 0 in self.std:
            raise ValueError("mean and std hold one value or one per channel, and std is never zero")

    @property
    def size(self) -> int:
        """Number of elements of one example."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class LearnerSpec:
    """A learner as plain data; `registry.build_learner` makes the learner.

    Attributes:
        method: registered name of the method.
        input: shape, type and normalisation of inputs.
        task_kind: classification or regression.
        max_ways: most classes a task may have; fixed for methods with a learned head, a serving limit for the others
            (zero for regression).
        target_size: target values per example (zero for classification).
        train_classes: classes of the training data, for methods that learn to tell all of them apart; zero elsewhere.
        backbone: registered name of the backbone.
        backbone_settings: settings of the backbone, by name.
        settings: settings of the method, by name.
        class_balance: weight of a class of the support set when adapting: "equal" for all classes, or "proportional"
            to its number of examples. Of bundles of before this was
            recorded, those with ONNX graphs are proportional, as their graphs are, and others equal.
        weighting: registered name of the weighting, which says what an example counts among those of its class; "none"
            if all count the same.
        support_policy: registered name of the policy that adds augmented copies to support sets; "none" for no copies.
        policy_settings: settings of this policy, by name.
    """

    method: str
    input: InputSpec
    task_kind: TaskKind = "classification"
    max_ways: int = 5
    target_size: int = 0
    train_classes: int = 0
    backbone: str = "conv4"
    backbone_settings: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    class_balance: ClassBalance = "equal"
    weighting: str = "none"
    support_policy: str = "none"
    policy_settings: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads back."""
        written = asdict(self)
        if self.weighting == "none":  # so that an Innerloop that knows of no weightings reads it too
            del written["weighting"]
        if self.support_policy == "none":  # likewise
            del written["support_policy"], written["policy_settings"]
        return written

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "LearnerSpec":
        """Read what `to_json` wrote.

        Raises:
            TypeError, KeyError, ValueError: the data does not describe a learner.
        """
        fields = dict(data)
        raw = dict(fields.pop("input"))
        for name in ("shape", "mean", "std"):
            raw[name] = tuple(raw[name])
        return with_settings("learner", cls, {**fields, "input": with_settings("input", InputSpec, raw)})
