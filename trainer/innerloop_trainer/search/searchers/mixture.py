"""A network that holds all architectures of a space at once."""

from typing import get_args

import torch
from torch import Tensor

from innerloop_learner.backbones.backbone import Normalise, backbones
from innerloop_learner.backbones.cell import Block, Cell, CellSettings, Edge, Operation, ends_of
from innerloop_learner.tasks import Params
from innerloop_trainer.outer_loop.estimators.darts import AUXILIARY_SKIP
from innerloop_trainer.search.spaces import Architecture

LOGITS = "mixture.logits"
"""Name of the logits of operations [edges, operations] of the cell that all blocks share."""

OPERATIONS: tuple[Operation, ...] = get_args(Operation)


@backbones.register("cell-mixture")
class Mixture(Cell):
    """Does all operations of a cell at once, for `darts` (Liu, Simonyan and Yang 2019).

    An edge from i to j computes, with operations o (equation 2 of the paper),

        o_ij(h) = sum over o of softmax(a_ij)_o o(h) + b h

    The logits a are those of the cell that all blocks share. b is the weight of the auxiliary skip connection (see the
    estimator `darts`). Norms on edges have no scale or shift of their own, which could undo what a mixture weighs.

    Only searches use it: the operations that its settings name have no effect.

    Raises:
        ValueError: blocks have cells of different sizes, or none has a cell.
    """

    def __init__(self, input_shape: tuple[int, ...], settings: CellSettings) -> None:
        sizes = {len(block["edges"]) for block in settings.blocks} - {0}
        if len(sizes) != 1:
            raise ValueError("a mixture of operations needs cells of one size")
        self._ends = ends_of(*sizes)
        super().__init__(input_shape, settings)

    def _cell(self, number: int, block: Block) -> list[Edge]:
        ends = self._ends if block.edges else []
        return [
            self._edge(f"edge{number}.{start}to{end}.{operation}", block.width, start, end, operation)
            for start, end in ends
            for operation in OPERATIONS
        ]

    def init(self, generator: torch.Generator) -> Params:
        """See Backbone.init; all operations weigh the same at first."""
        logits = torch.zeros(len(self._ends), len(OPERATIONS))
        return {**super().init(generator), LOGITS: logits, AUXILIARY_SKIP: torch.zeros(1)}

    def buffers(self) -> frozenset[str]:
        """See Backbone.buffers."""
        of_edges = (edge.norm for cell in self._cells for edge in cell if edge.norm is not None)
        fixed = {name for norm in of_edges for name in norm.init()}
        return super().buffers() | fixed | {AUXILIARY_SKIP}

    def architecture(self) -> frozenset[str]:
        """See Backbone.architecture."""
        return frozenset({LOGITS})

    def _along(self, params: Params, edge: Edge, x: Tensor, normalise: Normalise) -> Tensor | None:
        result = super()._along(params, edge, x, normalise)
        if result is None:
            return None
        place = self._ends.index((edge.start, edge.end)), OPERATIONS.index(edge.operation)
        weight = params[LOGITS].softmax(-1)[place]
        if edge.operation == "skip":
            weight = weight + params[AUXILIARY_SKIP][0]
        return weight * result


def most_probable(logits: Tensor, number: int) -> list[Architecture]:
    """The most probable architectures by logits [edges, operations], the first one first, none of them with a "none".

    How much "none" weighs says little, since the norm behind a sum makes up for it (Liu et al. 2019, section 2.4).
    """
    kept = [place for place, operation in enumerate(OPERATIONS) if operation != "none"]
    found: list[tuple[float, Architecture]] = [(0.0, ())]
    for row in logits.double().log_softmax(-1)[:, kept].tolist():
        grown = [
            (total + value, (*taken, option)) for total, taken in found for option, value in zip(kept, row, strict=True)
        ]
        found = sorted(grown, key=lambda each: (-each[0], each[1]))[:number]
    return [architecture for _, architecture in found]
