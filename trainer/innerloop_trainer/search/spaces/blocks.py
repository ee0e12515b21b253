"""A space of networks like Conv4: how many blocks, how wide, of what operations."""

from typing import Any

from innerloop_trainer.search.spaces.space import Architecture, Choice, Space, spaces

MOST_BLOCKS = 5

WIDTHS = (16, 32, 48, 64, 96, 128, 192, 256)
"""Channels that a block may have; multiples of 8 and 16, which suit group norm and processors."""

CELLS: dict[str, list[str]] = {
    "none": [],
    "conv1x1": ["conv1x1"],
    "conv3x3": ["conv3x3"],
    "residual1x1": ["conv1x1", "skip", "conv1x1"],
    "residual3x3": ["conv3x3", "skip", "skip"],
    "residual": ["conv3x3", "skip", "conv3x3"],
    "smoothed": ["mean3x3", "skip", "none"],
}
"""Cells that may stand behind a block's entry."""


class Blocks(Space):
    """Networks like Conv4, each block of a kind of its own.

    There are three to five blocks, each with a width, an entry, a way to halve images and a cell, and one norm for all.
    Conv4 is among them. What is chosen for blocks past the depth has no effect.
    """

    def __init__(self) -> None:
        choices = [Choice("depth", (3, 4, 5)), Choice("norm", ("task", "batch", "group"))]
        for block in range(MOST_BLOCKS):
            choices += [
                Choice(f"width{block}", WIDTHS),
                Choice(f"entry{block}", ("conv3x3", "conv1x1") if block else ("conv3x3",)),
                Choice(f"downsample{block}", ("stride", "max_pool", "mean_pool", *(("none",) if block else ()))),
                Choice(f"cell{block}", tuple(CELLS) if block else ("none",)),
            ]
        self.choices = tuple(choice for choice in choices if len(choice.options) > 1)

    def settings(self, architecture: Architecture) -> dict[str, Any]:
        """See Space.settings."""
        chosen = self.described(architecture)
        blocks = [
            {
                "width": chosen[f"width{block}"],
                "entry": chosen.get(f"entry{block}", "conv3x3"),
                "downsample": chosen[f"downsample{block}"],
                "edges": CELLS[chosen.get(f"cell{block}", "none")],
            }
            for block in range(chosen["depth"])
        ]
        return {"blocks": blocks, "norm": chosen["norm"]}


spaces.register("blocks")(Blocks())
