"""Architecture search: a searcher proposes architectures of a space, each is trained for a while and validated.

`spaces/` says what there is to choose, `searchers/` what to try next, `search.py` trains it, and `log.py` keeps what
was tried. What is found is the settings of a backbone.
"""

from innerloop_trainer.search.config import SearchConfig, SearchReport, divide_settings
from innerloop_trainer.search.log import SearchFolder, Tried
from innerloop_trainer.search.search import Search, untried
from innerloop_trainer.search.searchers import SearchError, searchers
from innerloop_trainer.search.spaces import spaces

__all__ = [
    "Search",
    "SearchConfig",
    "SearchError",
    "SearchFolder",
    "SearchReport",
    "Tried",
    "divide_settings",
    "searchers",
    "spaces",
    "untried",
]
