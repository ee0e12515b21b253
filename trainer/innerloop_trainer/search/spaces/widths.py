"""A space of plain networks like Conv4: how wide each block is, and how it halves images."""

from typing import Any

from innerloop_trainer.search.spaces.blocks import WIDTHS
from innerloop_trainer.search.spaces.space import Architecture, Choice, Space, spaces

BLOCKS = 4


class Widths(Space):
    """Four plain blocks, and where they halve images.

    It is Conv4 with its arithmetic spent elsewhere: each block has a width and a way to halve images, and no cell.
    Conv4-64 spends three quarters of its arithmetic in its second block. Nearly all of these networks learn, which is
    not so of `blocks`, so that few trials go further.
    """

    choices = (
        Choice("norm", ("task", "batch", "group")),
        *(Choice(f"width{block}", WIDTHS) for block in range(BLOCKS)),
        *(
            Choice(f"downsample{block}", ("stride", "max_pool", "mean_pool", *(("none",) if block else ())))
            for block in range(BLOCKS)
        ),
    )

    def settings(self, architecture: Architecture) -> dict[str, Any]:
        """See Space.settings."""
        chosen = self.described(architecture)
        blocks = [
            {"width": chosen[f"width{block}"], "downsample": chosen[f"downsample{block}"]} for block in range(BLOCKS)
        ]
        return {"blocks": blocks, "norm": chosen["norm"]}


spaces.register("widths")(Widths())
