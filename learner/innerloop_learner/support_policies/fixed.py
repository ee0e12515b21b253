"""A policy whose strengths are given."""

from innerloop_learner.augmentations import Strength, Strengths
from innerloop_learner.support_policies.support_policy import SupportPolicy, support_policies
from innerloop_learner.tasks import Params


@support_policies.register("fixed")
class FixedPolicy(SupportPolicy):
    """Copies with strengths that are given.

    The setting `augment` gives them, and each copy counts as much as the example itself.

    A learned policy begins like this; what it gains over this one, it gains by learning.
    """

    def strengths(self, params: Params) -> dict[str, Strengths]:
        """See SupportPolicy.strengths."""
        del params
        return {name: part.strengths for name, part in self._parts}

    def count(self, params: Params) -> Strength:
        """See SupportPolicy.count; 1."""
        del params
        return 1.0
