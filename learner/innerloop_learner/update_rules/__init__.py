"""How one inner step changes weights, registered by name."""

from innerloop_learner.update_rules import sgd
from innerloop_learner.update_rules.update_rule import UpdateRule, update_rules

__all__ = ["UpdateRule", "sgd", "update_rules"]
