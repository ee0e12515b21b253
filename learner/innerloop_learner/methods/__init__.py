"""Methods, registered by name."""

from innerloop_learner.methods import anil, boil, maml, meta_sgd, protonet

__all__ = ["anil", "boil", "maml", "meta_sgd", "protonet"]
