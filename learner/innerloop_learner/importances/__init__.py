"""Importance of weights: what examples so far relied on changes less for those that follow; registered by name.

Where classes are learned one after the other, what a class wrote into the head is what later ones overwrite. An
importance keeps, for every weight of the head, how much the examples so far relied on it, and divides the steps of what
follows. Its strengths are meta-learned with everything else.
"""

from innerloop_learner.importances import ewc, mas, none
from innerloop_learner.importances.importance import Importance, OnlineStep, importances

__all__ = ["Importance", "OnlineStep", "ewc", "importances", "mas", "none"]
