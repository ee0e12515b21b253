"""Policies that enlarge support sets by augmented copies before a learner adapts; registered by name.

A policy is a sequence of augmentations with strengths, and a number of copies of each example. What a copy shows
follows from the contents of the support set (`innerloop_learner.draws`) and from the strengths, so that adapting stays
a function of both; it is differentiable in the strengths, so that the loss of the queries can learn them.
"""

from innerloop_learner.support_policies import fixed, learned, none
from innerloop_learner.support_policies.support_policy import (
    PolicySettings,
    SupportPolicy,
    build_support_policy,
    support_policies,
)

__all__ = ["PolicySettings", "SupportPolicy", "build_support_policy", "fixed", "learned", "none", "support_policies"]
