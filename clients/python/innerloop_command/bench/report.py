"""Prints a result for people to read."""

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from innerloop_command.bench.histogram import PERCENTILES, Histogram
from innerloop_command.bench.measurements import EVICTED, PHASES
from innerloop_command.bench.results import BenchResult, LoadResult
from innerloop_command.bench.settings import ClosedLoop

SERVICE_TIMES = (
    "Closed loop: these are service times. A client that waits for a slow answer sends nothing meanwhile, so slow "
    "spells are under-represented (coordinated omission); the open loop (--rate) counts them in full."
)


def print_result(result: BenchResult, console: Console) -> None:
    """Print latencies, the parts of the time that requests took, and what load generator and server used."""
    task = result.task
    what = f"{task.ways} classes, {task.support} support examples" if task.ways else f"{task.support} support examples"
    console.print(
        f"{result.model.name} ({result.model.method}): {what}, {task.queries} queries; "
        f"AdaptPredict requests of {task.request_bytes / 1e3:.1f} kB",
    )
    console.print(_latencies(result))
    console.print(_phases(result))
    for load in result.loads:
        console.print(f"{load.load}: {'; '.join(_facts(load))}")
    if any(isinstance(load.load, ClosedLoop) for load in result.loads):
        console.print(SERVICE_TIMES, style="dim")
    for load in result.loads:
        if load.measures_itself:
            console.print(
                f"{load.load}: the load generator used {load.cpu_cores:.2f} of the {load.cpu_available} cores that its "
                "processes can use, so it measured itself; give it more --processes, or a machine of its own.",
                style="yellow",
            )


def _latencies(result: BenchResult) -> Table:
    table = _table("Latency in ms")
    for name in ("answers/s", *(f"p{percent:g}" for percent in PERCENTILES), "max", "evicted", "errors"):
        table.add_column(name, justify="right", overflow="fold")
    for load in result.loads:
        for rpc, measured in load.rpcs.items():
            evicted = measured.outcomes[EVICTED]
            errors = measured.requests - measured.outcomes["OK"] - evicted
            cells = (f"{load.rate(rpc):.1f}", *_milliseconds(measured.latency), str(evicted), str(errors))
            table.add_row(str(load.load), rpc, *cells)
        table.add_section()
    return table


def _phases(result: BenchResult) -> Table:
    table = _table("Where the time goes: mean / p99 in ms")
    for phase in PHASES:
        table.add_column(phase, justify="right", overflow="fold")
    for load in result.loads:
        for rpc, measured in load.rpcs.items():
            cells = (_mean_and_tail(measured.phases[phase]) for phase in PHASES)
            table.add_row(str(load.load), rpc, *cells)
        table.add_section()
    return table


def _table(title: str) -> Table:
    """A table whose first columns are load and RPC. Wide cells are folded, since a figure that is cut would lie."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("load", justify="right", overflow="fold")
    table.add_column("RPC", overflow="fold")
    return table


def _milliseconds(times: Histogram) -> Iterator[str]:
    values = [*(times.percentile(percent) for percent in PERCENTILES), times.max]
    return (f"{value * 1e3:.2f}" if times.count else "-" for value in values)


def _mean_and_tail(times: Histogram) -> str:
    return f"{times.mean * 1e3:.2f} / {times.percentile(99) * 1e3:.2f}" if times.max else "-"


def _facts(load: LoadResult) -> Iterator[str]:
    """Further remarks, a few words each."""
    server = load.server
    yield f"{load.throughput:.1f} answers/s in all"
    yield f"generator {load.cpu_cores:.2f} cores"
    if server.unseen:
        yield f"server not seen, {server.unseen}"
    if server.cpu_cores is not None:
        yield f"server {server.cpu_cores:.2f} cores"
    elif server.main_cpu_cores is not None:
        yield f"server's main process {server.main_cpu_cores:.2f} cores (--server-pid tells of all)"
    if server.batches_at_once is not None:
        yield f"about {server.batches_at_once:.2f} batches computed at a time"
    if server.device_busy is not None:
        yield f"device busy {server.device_busy:.0%} of the time"
    for operation, size in server.batch_size.items():
        yield f"{size:.1f} tasks in a batch of {operation}"
    for memory, size in server.device_memory_bytes.items():
        yield f"{memory} {size / 2**20:.0f} MiB"
    if server.adaptations_held is not None and server.adaptations_bytes is not None:
        yield f"{server.adaptations_held} adaptations held in {server.adaptations_bytes / 2**20:.1f} MiB"
    if server.adaptations_evicted:
        yield f"{server.adaptations_evicted} evicted by the server"
    if load.measured.remade:
        yield f"{load.measured.remade['OK']} made again"
    if load.measured.lag.count:
        yield f"requests sent {load.measured.lag.percentile(99) * 1e3:.2f} ms late (p99; part of their latency)"
    if load.measured.dropped:
        yield f"{load.measured.dropped} requests dropped, because too many were under way"
