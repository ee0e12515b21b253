"""Data sources: where episodes come from.

`load_source("omniglot:PATH")` gives three splits that draw episodes. A new source is a new file that registers itself
in `sources`, imported below, or an entry point of another distribution.
"""

from innerloop_trainer.data import digits, glyphs, images, omniglot, sinusoid, texts  # noqa: F401 - they register themselves
from innerloop_trainer.data.class_examples import ClassExamples, RawEpisodes
from innerloop_trainer.data.load import load_source
from innerloop_trainer.data.source import (
    DataError,
    DataSource,
    EpisodeShape,
    SourceLoader,
    SourceRequest,
    TaskSampler,
    sources,
)

__all__ = [
    "ClassExamples",
    "DataError",
    "DataSource",
    "EpisodeShape",
    "RawEpisodes",
    "SourceLoader",
    "SourceRequest",
    "TaskSampler",
    "load_source",
    "sources",
]
