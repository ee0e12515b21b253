"""No policy: support sets stay as they are."""

from typing import Any

from torch import Tensor

from innerloop_learner.augmentations import Strength, Strengths
from innerloop_learner.settings import NoSettings
from innerloop_learner.support_policies.support_policy import SupportPolicy, support_policies
from innerloop_learner.tasks import Params, Support


@support_policies.register("none")
class NoPolicy(SupportPolicy):
    """Leaves support sets as they are."""

    settings_class = NoSettings

    def __init__(self, shape: tuple[int, ...], settings: Any) -> None:
        del shape
        self.settings = settings

    def strengths(self, params: Params) -> dict[str, Strengths]:
        """See SupportPolicy.strengths; none."""
        del params
        return {}

    def count(self, params: Params) -> Strength:
        """See SupportPolicy.count; zero."""
        del params
        return 0.0

    @property
    def copies(self) -> int:
        """See SupportPolicy.copies; none."""
        return 0

    def enlarge(self, params: Params, support: Support) -> tuple[Support, Tensor | None]:
        """See SupportPolicy.enlarge; support sets as they are."""
        del params
        return support, None
