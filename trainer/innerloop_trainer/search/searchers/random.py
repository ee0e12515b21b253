"""Random search."""

from innerloop_trainer.search.searchers.searcher import Searcher, searchers
from innerloop_trainer.search.spaces import Architecture


@searchers.register("random")
class RandomSearch(Searcher):
    """Proposes each architecture as often as any other.

    Any other search has to be better than this at the same number of trained networks (Li and Talwalkar 2019).
    """

    def propose(self) -> Architecture:
        """See Searcher.propose."""
        generator = self._generator()
        return self.wanted.first(lambda: self.wanted.space.draw(generator))
