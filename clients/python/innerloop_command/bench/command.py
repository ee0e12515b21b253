"""`innerloop bench`: the load generator."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from innerloop.errors import InvalidArgumentError
from innerloop_command.bench.report import print_result
from innerloop_command.bench.results import BenchResult
from innerloop_command.bench.run import run_bench
from innerloop_command.bench.settings import BenchSettings, ClosedLoop, Load, OpenLoop, Popularity, parse_mix
from innerloop_command.client_options import ServerAccess, with_client_options
from innerloop_command.console import make_console, make_progress, print_error

app = typer.Typer(rich_markup_mode="markdown", add_completion=False)

CLIENTS = 8


@app.command()
@with_client_options
def bench(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    clients: Annotated[
        int | None,
        typer.Option(
            help=f"Closed loop: clients that send a request when their last is answered. [default: {CLIENTS}]"
        ),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Open loop: requests per second, sent at random (Poisson) times.")
    ] = None,
    sweep: Annotated[
        str | None, typer.Option(help="Measure several loads in turn: numbers of clients, for example 1,8,32.")
    ] = None,
    open_loop: Annotated[
        bool, typer.Option("--open", help="Take the numbers of --sweep for rates of the open loop.")
    ] = False,
    mix: Annotated[
        str, typer.Option(help="How often each RPC is called, relative to the others.")
    ] = "adapt=1,predict=8,adapt-predict=1",
    adaptations: Annotated[int, typer.Option(help="Live adaptations that Predict chooses from.")] = 100,
    popularity: Annotated[
        Popularity, typer.Option(help="Whether it chooses all equally often, or a few most of the time.")
    ] = "uniform",
    zipf_exponent: Annotated[
        float, typer.Option(help="With zipf, the k-th is chosen in proportion to 1 / k^exponent.")
    ] = 0.99,
    ways: Annotated[int | None, typer.Option(help="Classes of a task. [default: as trained]")] = None,
    shots: Annotated[int | None, typer.Option(help="Examples of each class. [default: as trained]")] = None,
    queries: Annotated[int, typer.Option(help="Queries in each request.")] = 5,
    steps: Annotated[int | None, typer.Option(help="Inner-loop steps. [default: the model's]")] = None,
    warm_up: Annotated[float, typer.Option(help="Seconds of load before measuring begins.")] = 2.0,
    duration: Annotated[float, typer.Option(help="Seconds to measure.")] = 10.0,
    processes: Annotated[int, typer.Option(help="Processes that send requests.")] = 1,
    connections: Annotated[int, typer.Option(help="Connections of each process.")] = 4,
    max_under_way: Annotated[
        int, typer.Option(help="Open loop: most requests that wait for an answer at a time; further ones are dropped.")
    ] = 4096,
    seed: Annotated[int, typer.Option(help="Seed of tasks, sending times and choices.")] = 0,
    keep_adaptations: Annotated[
        bool, typer.Option("--keep-adaptations", help="Leave the live adaptations on the server in the end.")
    ] = False,
    metrics: Annotated[
        str | None,
        typer.Option(help="URL of the server's metrics; with it, the report says what server and device did."),
    ] = None,
    server_pid: Annotated[
        int | None, typer.Option(help="Process id of a server on this machine; with it, the report says its CPU use.")
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write all figures and histograms to this file; earlier ones there are replaced."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw latency over throughput to this file (PNG, SVG or PDF).")
    ] = None,
    allow_errors: Annotated[
        bool, typer.Option("--allow-errors", help="Exit with 0 even if requests failed or were dropped.")
    ] = False,
    *,
    access: ServerAccess,
) -> None:
    """Measure latency and throughput of a running server, with random tasks for one of its models.

    The closed loop has clients that send their next request when the last one is answered. It shows how much a server
    can do; its latencies are service times. The open loop sends requests at random times, as independent users do. Its
    latencies count from the time at which a request was due, so that a stall of the server counts for all requests
    that were due meanwhile.

    Predict asks adaptations that are made beforehand and deleted at the end. One that the server has dropped counts as
    evicted and is made again; that takes no part in the latencies. Adaptations of the Adapt requests that are measured
    live for one second, so that they do not fill the server.

    The exit code is 1 if a request failed or was dropped.
    """
    settings = BenchSettings(
        model=model,
        loads=_loads(clients, rate, sweep, open_loop),
        server=access.target,
        tls=access.tls,
        api_key=access.api_key,
        mix=parse_mix(mix),
        adaptations=adaptations,
        popularity=popularity,
        zipf_exponent=zipf_exponent,
        ways=ways,
        shots=shots,
        queries=queries,
        steps=steps,
        warm_up=warm_up,
        duration=duration,
        processes=processes,
        connections=connections,
        max_under_way=max_under_way,
        timeout=access.timeout,
        seed=seed,
        keep_adaptations=keep_adaptations,
        metrics_url=metrics,
        server_pid=server_pid,
    )
    if json_file is not None:
        _prepare("--json", json_file)
        _check_replaceable(json_file)
    if plot is not None:
        # Imported late, because nothing else needs it, and before the run, because it may not be installed.
        from innerloop_command.bench.plot import check_type, draw_latency

        check_type(plot)
        _prepare("--plot", plot)
    with make_progress() as progress:
        bar = progress.add_task("", total=1)
        result = run_bench(settings, lambda stage, done: progress.update(bar, description=stage, completed=done))
    print_result(result, make_console())
    if json_file is not None:
        json_file.write_text(json.dumps(result.as_dict(), indent=1) + "\n")
    if plot is not None:
        draw_latency(result, plot)
    _report_failures(result, allow_errors)


def _loads(clients: int | None, rate: float | None, sweep: str | None, open_loop: bool) -> tuple[Load, ...]:
    """The loads that the options name.

    Raises:
        InvalidArgumentError: they contradict one another.
    """
    if sum(option is not None for option in (clients, rate, sweep)) > 1:
        raise InvalidArgumentError("--clients, --rate and --sweep exclude one another")
    if open_loop and sweep is None:
        raise InvalidArgumentError("--open says what the numbers of --sweep are; for one rate give --rate")
    if sweep is not None:
        numbers = _numbers(sweep, float if open_loop else int)
        return tuple(OpenLoop(number) if open_loop else ClosedLoop(int(number)) for number in numbers)
    return (OpenLoop(rate),) if rate is not None else (ClosedLoop(CLIENTS if clients is None else clients),)


def _numbers(text: str, kind: type[int] | type[float]) -> list[float]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise InvalidArgumentError(f"--sweep is {text!r}, numbers with commas between them are needed") from None


def _prepare(option: str, file: Path) -> None:
    """Check, before the run, that a file can be written after it, and make its folder.

    Raises:
        InvalidArgumentError: it can't be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidArgumentError(f"{option}: can't write {file}: {error.strerror}") from error
    if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise InvalidArgumentError(f"{option}: can't write {file}: it is a folder, or belongs to somebody else")


def _check_replaceable(file: Path) -> None:
    """Check that nothing but the figures of an earlier run would be replaced.

    Raises:
        InvalidArgumentError: the file holds something else.
    """
    if not file.is_file() or not file.stat().st_size:
        return
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        content = None
    if not (isinstance(content, dict) and content.keys() >= {"model", "task", "loads"}):
        raise InvalidArgumentError(f"--json: {file} holds something else than such figures; name another file")


def _report_failures(result: BenchResult, allowed: bool) -> None:
    if result.failures and not allowed:
        counts = ", ".join(f"{what} {count}" for what, count in result.failures.most_common())
        print_error(f"innerloop: requests failed: {counts}")
        raise typer.Exit(1)
