"""A small space, of which every architecture can be trained."""

from typing import Any, get_args

from innerloop_learner.backbones.cell import Operation
from innerloop_trainer.search.spaces.space import Architecture, Choice, Space, spaces


class Edges(Space):
    """125 tiny networks: 5 operations on 3 edges of a cell.

    Two of three small blocks have the cell. It is NAS-Bench-201 (Dong and Yang 2020) with one node less. A search of it
    is worth nothing in itself; it shows what a searcher does where the best architecture is known.
    """

    choices = tuple(Choice(edge, get_args(Operation)) for edge in ("0to1", "0to2", "1to2"))
    one_cell = True

    def settings(self, architecture: Architecture) -> dict[str, Any]:
        """See Space.settings."""
        cell = {"width": 16, "downsample": "stride", "edges": list(self.described(architecture).values())}
        return {"blocks": [{"width": 8, "downsample": "stride"}, cell, cell], "norm": "task"}


spaces.register("edges")(Edges())
