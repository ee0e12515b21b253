"""How one inner step changes weights, registered by name."""

from innerloop_learner.update_rules import learned_rates, sgd
from innerloop_learner.update_rules.update_rule import UpdateRule, update_rules

__all__ = ["UpdateRule", "learned_rates", "sgd", "update_rules"]
