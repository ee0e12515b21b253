"""Noise on the outputs of a backbone's layers while a learner adapts.

A noise multiplies the outputs of every layer, before they are normalised, by random factors on support examples in the
inner loop, and by what these factors are without randomness everywhere else. Noise is a function of the support set
and of parameters, so that adapting stays one: `innerloop_learner.draws` says how.
"""

from innerloop_learner.noises import fixed, meta_dropout, none
from innerloop_learner.noises.noise import NOISE, Noise, noises

__all__ = ["NOISE", "Noise", "fixed", "meta_dropout", "noises", "none"]
