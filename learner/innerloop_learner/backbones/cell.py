"""Cells: a convolutional network that is described by data, as architecture search finds it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.backbones.backbone import Backbone, Normalise, backbones, check_images
from innerloop_learner.layers import conv2d, glorot, max_pool2d, mean_filter2d, mean_pool2d
from innerloop_learner.norms import Norm, norms
from innerloop_learner.settings import setting, with_settings
from innerloop_learner.tasks import Params

Operation = Literal["none", "skip", "mean3x3", "conv1x1", "conv3x3"]
"""What an edge does: nothing passes, all passes as it is, a mean over 3x3 pixels, or a convolution with a norm."""

KERNELS = {"conv1x1": 1, "conv3x3": 3}
"""Height and width of each operation that is a convolution, in pixels."""


@dataclass(frozen=True)
class Block:
    """One block of a cell network, as a setting writes it.

    Raises:
        ValueError: the number of edges is that of no cell.
    """

    width: int = setting(64, "channels", least=1)
    entry: Literal["conv1x1", "conv3x3"] = setting("conv3x3", "convolution that the block begins with")
    downsample: Literal["max_pool", "mean_pool", "stride", "none"] = setting(
        "max_pool", "how the block halves images, if it does"
    )
    edges: Sequence[Operation] = setting((), "operations of the cell, 0 to 1, 0 to 2, 1 to 2, 0 to 3, ...; or no cell")

    def __post_init__(self) -> None:
        ends_of(len(self.edges))


@dataclass(frozen=True)
class CellSettings:
    """Settings of a cell network."""

    blocks: Sequence[Mapping[str, Any]] = setting(
        ({}, {}, {}, {}), "its blocks, each an object of width, entry, downsample and edges; what is left out is usual"
    )
    norm: str = setting("task", "registered name of the norm behind every convolution")

    def __post_init__(self) -> None:
        """Write out what was left out, so that a default that changes later changes no bundle."""
        if not self.blocks:
            raise ValueError("blocks must name one block at least")
        written = [with_settings(f"block {number}", Block, block) for number, block in enumerate(self.blocks)]
        object.__setattr__(self, "blocks", [{**asdict(block), "edges": list(block.edges)} for block in written])


class Edge(NamedTuple):
    """An edge of a block's cell.

    Attributes:
        name: prefix of its parameters.
        start, end: nodes that it leads from and to.
        operation: what it does.
        norm: norm behind its convolution; None if it has none.
    """

    name: str
    start: int
    end: int
    operation: Operation
    norm: Norm | None


@backbones.register("cell")
class Cell(Backbone):
    """Reads images by blocks, each with a cell behind it.

    A block's entry is a convolution with norm, downsampling and ReLU; its result is node 0 of the cell. With operation
    o_ij on the edge from node i to node j (as in NAS-Bench-201, Dong and Yang 2020; residual connections are among the
    choices):

        h_j = ReLU(sum over i < j of o_ij(h_i)),   the block's result is the last node

    Four usual blocks without a cell are Conv4. `innerloop search` finds descriptions that do better.

    Raises:
        ValueError: the input is not an image, or too small to be halved so often.
    """

    settings_class = CellSettings
    settings: CellSettings

    def __init__(self, input_shape: tuple[int, ...], settings: CellSettings) -> None:
        super().__init__(input_shape, settings)
        check_images("cell", input_shape)
        self.blocks = [Block(**block) for block in settings.blocks]
        self.depth = len(self.blocks)
        self._inputs = (input_shape[0], *(block.width for block in self.blocks))  # channels that each block reads
        self._maps = (self._inputs[-1], *_size(self.blocks, input_shape[1:]))
        self.features = torch.Size(self._maps).numel()
        norm = norms[settings.norm]
        self._entry_norms = [norm(f"norm{number}", block.width) for number, block in enumerate(self.blocks)]
        self._cells = [self._cell(number, block) for number, block in enumerate(self.blocks)]
        of_edges = (edge.norm for cell in self._cells for edge in cell if edge.norm is not None)
        self.norms = [*self._entry_norms, *of_edges]

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """See Backbone.feature_shape."""
        return self._maps

    def init(self, generator: torch.Generator) -> Params:
        """See Backbone.init."""
        params: Params = {}
        for number, block in enumerate(self.blocks):
            kernel = KERNELS[block.entry]
            params[f"conv{number}.weight"] = glorot(generator, block.width, self._inputs[number], kernel, kernel)
            params[f"conv{number}.bias"] = torch.zeros(block.width)
            for edge in self._cells[number]:
                if edge.norm is not None:
                    kernel = KERNELS[edge.operation]
                    params[f"{edge.name}.weight"] = glorot(generator, block.width, block.width, kernel, kernel)
                    params[f"{edge.name}.bias"] = torch.zeros(block.width)
        for norm in self.norms:
            params.update(norm.init())
        return params

    def _cell(self, number: int, block: Block) -> list[Edge]:
        """The edges of a block's cell, by the nodes that they lead to."""
        ends = ends_of(len(block.edges))
        return [
            self._edge(f"edge{number}.{start}to{end}", block.width, start, end, operation)
            for (start, end), operation in zip(ends, block.edges, strict=True)
        ]

    def _edge(self, name: str, width: int, start: int, end: int, operation: Operation) -> Edge:
        norm = norms[self.settings.norm](f"norm_{name}", width) if operation in KERNELS else None
        return Edge(name, start, end, operation, norm)

    def _layers(self, params: Params, x: Tensor, normalise: Normalise) -> Tensor:
        for number in self.span:
            x = self._entered(params, number, self.blocks[number], x, normalise)
            x = self._through(params, self._cells[number], x, normalise)
        if not self.ends:
            return x
        return x.flatten(2).to(params["conv0.weight"].dtype)  # convolutions may leave another one in low precision

    def _entered(self, params: Params, number: int, block: Block, x: Tensor, normalise: Normalise) -> Tensor:
        """Convolution, norm, downsampling and ReLU that a block begins with."""
        stride = 2 if block.downsample == "stride" else 1
        y = conv2d(x, params[f"conv{number}.weight"], params[f"conv{number}.bias"], stride)
        y = normalise(self._entry_norms[number], y)
        if block.downsample == "max_pool":
            y = max_pool2d(y)
        elif block.downsample == "mean_pool":
            y = mean_pool2d(y)
        return F.relu(y)

    def _through(self, params: Params, cell: Sequence[Edge], x: Tensor, normalise: Normalise) -> Tensor:
        """The last node of a cell whose node 0 is x [T, N, C, H, W]."""
        nodes = [x]
        for _, edges in groupby(cell, key=lambda edge: edge.end):
            results = (self._along(params, edge, nodes[edge.start], normalise) for edge in edges)
            passed = [result for result in results if result is not None]
            # If nothing passes, the node is 0 * x rather than zeros, since a gradient must exist even if it is zero.
            nodes.append(F.relu(sum(passed[1:], passed[0])) if passed else 0 * x)
        return nodes[-1]

    def _along(self, params: Params, edge: Edge, x: Tensor, normalise: Normalise) -> Tensor | None:
        """What an edge makes of the node x [T, N, C, H, W] that it leads from; None if nothing passes."""
        if edge.operation == "none":
            return None
        if edge.operation == "skip":
            return x
        if edge.norm is None:
            return mean_filter2d(x)
        return normalise(edge.norm, conv2d(x, params[f"{edge.name}.weight"], params[f"{edge.name}.bias"]))


def ends_of(edges: int) -> list[tuple[int, int]]:
    """The nodes that each of a cell's edges leads from and to; every node has one from each node before it.

    Raises:
        ValueError: no cell has so many edges.

    Example:
        >>> ends_of(3)
        [(0, 1), (0, 2), (1, 2)]
    """
    nodes = 0
    while nodes * (nodes + 1) // 2 < edges:
        nodes += 1
    ends = [(start, end) for end in range(1, nodes + 1) for start in range(end)]
    if len(ends) != edges:
        raise ValueError(f"a cell has an edge between any two nodes, which makes 0, 1, 3, 6, ... edges, not {edges}")
    return ends


def _size(blocks: Sequence[Block], size: Sequence[int]) -> tuple[int, int]:
    """Height and width of maps behind all blocks, for images of a height and width.

    Raises:
        ValueError: nothing is left of them.
    """
    height, width = size
    for block in blocks:
        if block.downsample == "stride":
            height, width = (height + 1) // 2, (width + 1) // 2
        elif block.downsample != "none":
            height, width = height // 2, width // 2
    if height * width == 0:
        raise ValueError(f"images of {size[0]}x{size[1]} are too small to be halved so often; leave some at none")
    return height, width
