"""Spaces of architectures to search, registered by name."""

from innerloop_trainer.search.spaces import blocks, edges, widths
from innerloop_trainer.search.spaces.space import Architecture, Choice, Space, spaces

__all__ = ["Architecture", "Choice", "Space", "blocks", "edges", "spaces", "widths"]
