"""Methods, registered by name."""

from innerloop_learner.methods import anil, maml, protonet

__all__ = ["anil", "maml", "protonet"]
