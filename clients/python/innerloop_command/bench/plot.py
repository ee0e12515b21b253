"""Draws latency over throughput."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from innerloop.errors import InvalidArgumentError
from innerloop_command.bench.results import BenchResult, LoadResult
from innerloop_command.bench.settings import OpenLoop, Rpc

SHOWN = {50.0: "#0969da", 99.0: "#cf222e"}
"""Percentiles, and their colours."""


def check_type(path: Path) -> None:
    """Check that pictures of the type that a path ends in can be drawn.

    Raises:
        InvalidArgumentError: they can't.
    """
    kind = path.suffix.removeprefix(".")
    if kind.lower() not in Figure().canvas.get_supported_filetypes():
        raise InvalidArgumentError(f"--plot: there are no pictures of type {kind!r}; png, svg and pdf are common ones")


def draw_latency(result: BenchResult, path: Path) -> None:
    """Draw p50 and p99 of each RPC over the throughput of all RPCs together, one point for each load.

    Args:
        result: of a sweep.
        path: image to write, of the type that its ending names.
    """
    rpcs = list(result.loads[0].rpcs)
    figure = Figure(figsize=(1.0 + 4.2 * len(rpcs), 4.2), layout="constrained")
    for axes, rpc in zip(figure.subplots(1, len(rpcs), squeeze=False, sharey=True)[0], rpcs, strict=True):
        _draw_rpc(axes, rpc, result.loads)
    open_loop = any(isinstance(load.load, OpenLoop) for load in result.loads)
    counted = "from the moment a request was due" if open_loop else "service time"
    figure.supylabel(f"latency, {counted} (ms)", fontsize=10)
    figure.supxlabel("answers per second, all RPCs together", fontsize=10)
    figure.suptitle(f"{result.model.name} ({result.model.method})", fontsize=11, parse_math=False)
    figure.savefig(path, dpi=130)


def _draw_rpc(axes: Axes, rpc: Rpc, loads: Sequence[LoadResult]) -> None:
    answered = [load for load in loads if load.rpcs[rpc].latency.count]
    throughputs = [load.throughput for load in answered]
    for percent, colour in SHOWN.items():
        latencies = [load.rpcs[rpc].latency.percentile(percent) * 1e3 for load in answered]
        axes.plot(throughputs, latencies, marker="o", color=colour, label=f"p{percent:g}")
    for load, throughput in zip(answered, throughputs, strict=True):
        height = load.rpcs[rpc].latency.percentile(99) * 1e3
        axes.annotate(str(load.load), (throughput, height), (0, 5), textcoords="offset points", fontsize=7, ha="center")
    axes.set_title(rpc, fontsize=10)
    axes.set_xlim(left=0)
    if answered:
        axes.set_yscale("log")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(fontsize=8)
