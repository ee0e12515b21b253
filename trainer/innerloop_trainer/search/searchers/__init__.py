"""Searchers, which say what architecture to try next, registered by name."""

from innerloop_trainer.search.searchers import darts, evolution, random, reinforce
from innerloop_trainer.search.searchers.searcher import Searcher, SearchError, Wanted, build_searcher, searchers

__all__ = [
    "SearchError",
    "Searcher",
    "Wanted",
    "build_searcher",
    "darts",
    "evolution",
    "random",
    "reinforce",
    "searchers",
]
