"""How one inner step changes weights, registered by name."""

from innerloop_learner.update_rules import adam, layer_rates, learned_rates, lstm, lstm_gates, sgd
from innerloop_learner.update_rules.update_rule import UpdateRule, update_rules

__all__ = ["UpdateRule", "adam", "layer_rates", "learned_rates", "lstm", "lstm_gates", "sgd", "update_rules"]
