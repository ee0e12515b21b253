"""The interface of support policies."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from innerloop_learner.augmentations import Augment, Strength, Strengths, named_augmentations, text_of
from innerloop_learner.draws import example_keys, keys_of_sample
from innerloop_learner.registry import Registry, UnknownNameError
from innerloop_learner.settings import SettingsError, refusing, setting, with_settings
from innerloop_learner.tasks import Params, Support

USUAL, DRAWINGS, PHOTOGRAPHS = "usual", "affine,elastic,stroke,erasing", "affine,colour,erasing"
"""Text that names the usual augmentations, and these, of images of one channel and of others."""

IMAGE = 3
"""Number of dimensions of an image [C, H, W]."""


@dataclass(frozen=True)
class PolicySettings:
    """Settings of the policies that make copies."""

    copies: int = setting(4, "augmented copies of each support example", least=1, most=64)
    augment: str = setting(
        USUAL,
        "augmentations of copies, as NAME?strength=number joined by commas, with which a learned policy begins; usual "
        f"stands for {DRAWINGS} of images of one channel and for {PHOTOGRAPHS} of others",
    )


class SupportPolicy(ABC):
    """Adds k augmented copies of each example to support sets; its functions are pure.

    With the count c of a copy, an example weighs 1 / (1 + k c) and each of its copies c / (1 + k c) in losses, means
    and linear systems, so that together they weigh as much as the example alone. In statistics of norms all weigh the
    same.

    Args:
        shape: shape of one example.
        settings: an instance of `settings_class`.

    Raises:
        ValueError: examples are no images, or the settings name no augmentations.
    """

    settings_class: ClassVar[type[Any]] = PolicySettings
    """A frozen dataclass of the settings, each declared by `settings.setting`."""

    settings: Any

    def __init__(self, shape: tuple[int, ...], settings: Any) -> None:
        if len(shape) != IMAGE:
            raise ValueError("it augments images, and these inputs are none; leave the support policy out")
        usual = DRAWINGS if shape[0] == 1 else PHOTOGRAPHS
        try:
            self._parts = named_augmentations(usual if settings.augment == USUAL else settings.augment)
        except UnknownNameError as error:
            raise SettingsError(str(error)) from error
        names = [name for name, _ in self._parts]
        if not names or len({*names}) < len(names):
            raise ValueError(f"augment names augmentations, each once, not {settings.augment!r}")
        # Written out, so that a bundle keeps its strengths if other ones become usual.
        self.settings = replace(settings, augment=text_of(self._parts))

    def init(self) -> Params:
        """Fresh meta-learned parameters, named "policy.*"; the same each time, so that nothing else changes by them."""
        return {}

    @abstractmethod
    def strengths(self, params: Params) -> dict[str, Strengths]:
        """The strengths of each augmentation by name."""

    @abstractmethod
    def count(self, params: Params) -> Strength:
        """The count c of a copy, in parts of that of the example itself; a tensor, or 1 where nothing learns it."""

    @property
    def copies(self) -> int:
        """The number of copies k of each example."""
        copies: int = self.settings.copies
        return copies

    def enlarge(self, params: Params, support: Support) -> tuple[Support, Tensor | None]:
        """Support sets [T, S (1 + k)]: the examples as they are, then the first copy of each, then the second.

        Args:
            params: meta-learned parameters, the policy's own among them.
            support: the labelled examples.

        Returns:
            the support sets, and what their examples weigh in losses [T, S (1 + k)], 1 on average over each example and
            its copies; None if all weigh the same.
        """
        copies, x = self.copies, support.x
        keys = example_keys(x, support.mask)
        of_copies = torch.cat([keys_of_sample(keys, 0, copy) for copy in range(copies)], 1)  # [T, k S]
        strengths = self.strengths(params)
        augment = Augment([type(part)(strengths[name]) for name, part in self._parts])
        images = augment.by_keys(_repeated(x, copies), of_copies)
        enlarged = replace(
            support,
            x=torch.cat([x, images], 1),
            y=_repeated(support.y, 1 + copies),
            mask=_repeated(support.mask, 1 + copies),
        )
        return enlarged, self._weights(enlarged.mask, self.count(params))

    def _weights(self, mask: Tensor, count: Strength) -> Tensor | None:
        """What examples and copies weigh in losses, from a mask of both [T, S (1 + k)]."""
        if not isinstance(count, Tensor):
            return None
        examples = mask.shape[1] // (1 + self.copies)
        original = torch.arange(mask.shape[1], device=mask.device) < examples
        weights = torch.where(original, 1.0, count) * (1 + self.copies) / (1 + self.copies * count)
        # No gradient comes from padding, of whose weight some methods take the root.
        return torch.where(mask, weights, 0.0)


def _repeated(tensor: Tensor, times: int) -> Tensor:
    """A tensor [T, S, ...] so many times, one after the other, [T, S times, ...]."""
    return torch.cat([tensor] * times, 1)


support_policies: Registry[type[SupportPolicy]] = Registry(
    "support policy", "innerloop.support_policies", "innerloop_learner.support_policies"
)


def build_support_policy(name: str, shape: tuple[int, ...], settings: Mapping[str, Any]) -> SupportPolicy:
    """Build the policy that is registered under a name, for examples of a shape.

    Raises:
        UnknownNameError: there is no support policy of this name.
        SettingsError: it does not take these settings or examples.
    """
    kind, owner = support_policies[name], f"support policy {name}"
    with refusing(owner):
        return kind(shape, with_settings(owner, kind.settings_class, settings))
