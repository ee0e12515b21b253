"""Kills the worker processes of one server under load, again and again, and waits until each has been replaced.

    python benchmarks/hostile/replacements.py [--count 1000] [--more] [--out FILE]

Clients adapt, update, predict and delete. Each time, one to three of three workers are killed with SIGKILL at a random
moment, and the next kill comes once others have started in their place. The server must live through all of it: every
call is answered, since the thread of a lane computes what its worker does not; every answer is compared with what an
idle server answered to the same question; at the end, all adaptations answer once more; and the process that serves
gains no memory, descriptors and mappings from kill to kill. Writes replacements.json after each time, so that nothing
is lost when it is interrupted; with --more, another server counts on from what is there. Exits with 1 if
something was wrong.
"""

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil

from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1.adaptation_pb2_grpc import AdaptationServiceStub
from innerloop_command.server_process import ServerProcess

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from hostile.soak import CALL_SECONDS, Asked, Outcome, References

MODULE = "innerloop_server.engine.pytorch.worker_process"
"""What a worker process runs."""

MODELS = ("anil", "maml")
CLIENTS, LANES, TASKS = 4, 3, 20
MOST = 50
"""Adaptations that a client keeps at most."""

UPDATED, DELETED = 0.15, 0.1
"""Shares of calls that give an adaptation other examples, and that delete one."""

PAUSE_SECONDS = 0.1
"""Between two calls of a client, so that new workers find time to start beside them on two cores."""

SOON_SECONDS, LATE_SECONDS = 0.2, 0.7
"""After its start, when a worker may be killed at the earliest and at the latest."""

START_SECONDS, LOOK_SECONDS = 300.0, 0.05
"""How long a server or a worker may take to start, since a busy machine is no fault of theirs; between two looks."""

GROWTH = {"resident_bytes": 50_000, "descriptors": 0.1, "mappings": 0.1}
"""What the serving process may gain from kill to kill, in the second half of them. A socket or a piece of shared memory
that is left behind each time would be 1 descriptor or mapping at least."""

TOTALS = ("replacements", "answers", "adaptations", "interrupted")
"""Counts that are summed over servers."""

SHOWN = 30
"""Samples that are written down."""


@dataclass
class Sample:
    """What the process that serves takes."""

    resident_bytes: int
    descriptors: int
    mappings: int


def replace(
    server: ServerProcess, references: References, count: int, tell: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Have `count` workers of a server killed and replaced under load.

    Args:
        server: server that is running, of `MODELS`, with several lanes.
        references: right answers.
        count: of replacements; there are fewer if one fails.
        tell: called with what was found after each replacement.

    Returns:
        "replacements", "answers", "adaptations" made, "problems", and of the process that serves "samples" and their
        "growth" from kill to kill.
    """
    outcome, over = Outcome(), threading.Event()
    kept: list[list[Asked]] = [[] for _ in range(CLIENTS)]
    clients = [
        threading.Thread(target=_client, args=(server.target, references, outcome, over, mine, number))
        for number, mine in enumerate(kept)
    ]
    chance, samples, replaced = random.Random(0), list[Sample](), 0
    for client in clients:
        client.start()
    try:
        while replaced < count and (killed := _replace_some(server, outcome, chance)):
            replaced += killed
            samples.append(_sample(server))
            tell(_found(outcome, samples, replaced))
    finally:
        over.set()
        for client in clients:
            client.join()
    with grpc.insecure_channel(server.target) as channel:
        stub = AdaptationServiceStub(channel)
        for asked in (each for mine in kept for each in mine):
            _ask(stub, references, outcome, asked)
    return _found(outcome, samples, replaced)


def _found(outcome: Outcome, samples: Sequence[Sample], replaced: int) -> dict[str, Any]:
    with outcome.lock:
        counts, problems = outcome.counts.copy(), dict(outcome.problems)
    return {
        "replacements": replaced,
        "answers": counts.total(),
        "adaptations": counts["Adapt"],
        "problems": problems,
        "growth": {name: growth([getattr(each, name) for each in samples]) for name in GROWTH},
        "samples": [vars(each) for each in samples[:: max(len(samples) // SHOWN, 1)]],
    }


def growth(values: Sequence[float]) -> float:
    """Gain from one value to the next in the second half of them; zero for fewer than four."""
    later = values[len(values) // 2 :]
    return round(float(np.polyfit(range(len(later)), later, 1)[0]), 3) if len(values) >= 4 else 0.0


def _replace_some(server: ServerProcess, outcome: Outcome, chance: random.Random) -> int:
    """Kill workers and wait for others in their place; how many, or 0 if that went wrong."""
    workers = _wait_for_workers(server)
    time.sleep(chance.uniform(SOON_SECONDS, LATE_SECONDS))
    if len(workers) == LANES:
        killed = chance.sample(workers, chance.randint(1, LANES))
        for worker in killed:
            worker.kill()
        if len(_wait_for_workers(server, killed)) == LANES:
            return len(killed)
    outcome.problem("the server ended" if server.process.poll() is not None else "a worker was not replaced")
    return 0


def _wait_for_workers(server: ServerProcess, killed: Sequence[psutil.Process] = ()) -> list[psutil.Process]:
    """The workers but the killed ones, as soon as each lane has one that has started; fewer if that does not happen."""
    give_up = time.monotonic() + START_SECONDS
    found = list[psutil.Process]()
    while len(found) < LANES and time.monotonic() < give_up and server.process.poll() is None:
        time.sleep(LOOK_SECONDS)
        found = [each for each in _workers(server) if each not in killed and _has_started(each)]
    return found


def _workers(server: ServerProcess) -> list[psutil.Process]:
    children = psutil.Process(server.process.pid).children()
    return sorted((each for each in children if MODULE in _command(each)), key=lambda each: each.pid)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has just ended
        return []


def _has_started(worker: psutil.Process) -> bool:
    """Whether a worker has the thread that gives signs of life, which is its second one."""
    try:
        return worker.num_threads() > 1
    except psutil.Error:
        return False


def _sample(server: ServerProcess) -> Sample:
    process = psutil.Process(server.process.pid)
    mappings = Path(f"/proc/{process.pid}/maps").read_text().count("\n")
    return Sample(process.memory_info().rss, process.num_fds(), mappings)


def _client(
    target: str, references: References, outcome: Outcome, over: threading.Event, mine: list[Asked], seed: int
) -> None:
    chance = random.Random(seed)
    with grpc.insecure_channel(target) as channel:
        stub = AdaptationServiceStub(channel)
        while not over.wait(PAUSE_SECONDS):
            what, task = chance.random(), chance.randrange(TASKS)
            if not mine or (what > 0.7 and len(mine) < MOST):
                model = chance.choice(MODELS)
                adapt = pb.AdaptRequest(model=model, support=references.support(model, task))
                if (made := _call(stub.Adapt, adapt, outcome)) is not None:
                    mine.append(Asked(made.adaptation.id, model, [task]))
            elif what < DELETED:
                asked = mine.pop(chance.randrange(len(mine)))
                _call(stub.DeleteAdaptation, pb.DeleteAdaptationRequest(adaptation_id=asked.id), outcome)
            elif what < DELETED + UPDATED:
                asked = chance.choice(mine)
                support = references.support(asked.model, task)
                update = pb.UpdateAdaptationRequest(adaptation_id=asked.id, support=support)
                if _call(stub.UpdateAdaptation, update, outcome) is not None:
                    asked.tasks = [task]
            else:
                _ask(stub, references, outcome, chance.choice(mine))


def _ask(stub: AdaptationServiceStub, references: References, outcome: Outcome, asked: Asked) -> None:
    """Ask an adaptation, and compare what it answers."""
    predict = pb.PredictRequest(adaptation_id=asked.id, query=references.query(asked.model))
    answer = _call(stub.Predict, predict, outcome)
    if answer is not None and not references.right(asked, answer):
        outcome.problem(f"a wrong answer of {asked.model}")


def _call(method: Any, request: Any, outcome: Outcome) -> Any:
    """One call, which must be answered; None if it was not."""
    kind = type(request).__name__.removesuffix("Request")
    try:
        answer = method(request, timeout=CALL_SECONDS)
    except grpc.RpcError as error:
        outcome.problem(f"{kind}: {error.code().name}, {error.details()}")
        return None
    outcome.count(kind)
    return answer


def run(folder: Path, count: int, tell: Callable[[dict[str, Any]], None] = lambda _: None) -> dict[str, Any]:
    """Start a server in an empty folder and have `count` of its workers replaced.

    Returns:
        That of `replace`, "interrupted": batches that a worker did not compute to the end, "tracebacks_in_log" and
        "exit_code".
    """
    from untrained import IMAGES, SPECS, write_bundles

    models = write_bundles(folder / "models", {name: SPECS[name] for name in MODELS})
    settings: dict[str, Any] = {"store": f"sqlite:{folder / 'store'}", "lanes": LANES, "threads": 1, "device": "cpu"}
    with ServerProcess(models, start_seconds=START_SECONDS, **settings) as server:
        references = References(server.target, dict.fromkeys(MODELS, IMAGES.shape), {name: [name] for name in MODELS})
        found = replace(server, references, count, tell)
        log = server.log
    return {
        **found,
        "interrupted": log.count("batch not computed by a worker"),
        "tracebacks_in_log": log.count("Traceback"),
        "exit_code": server.process.returncode,
    }


def is_well(found: dict[str, Any]) -> bool:
    """Whether nothing was wrong."""
    flat = all(found["growth"][name] <= most for name, most in GROWTH.items())
    return flat and not (found["problems"] or found["tracebacks_in_log"] or found["exit_code"])


def main() -> None:
    """Replace workers and write replacements.json."""
    from machine import describe_machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--more", action="store_true", help="count on from what the file holds")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("replacements.json"))
    given = parser.parse_args()
    before = json.loads(given.out.read_text())["servers"] if given.more else []
    began = time.monotonic()

    def tell(found: dict[str, Any]) -> None:
        servers = [*before, {**found, "seconds": round(time.monotonic() - began)}]
        totals = sum((Counter({name: each.get(name, 0) for name in TOTALS}) for each in servers), Counter[str]())
        content = {"machine": describe_machine(), **totals, "servers": servers}
        given.out.write_text(json.dumps(content, indent=2) + "\n")

    with tempfile.TemporaryDirectory(prefix="replacements-") as folder:
        found = run(Path(folder), given.count, tell)
    tell(found)
    print(given.out.read_text())
    sys.exit(not is_well(found))


if __name__ == "__main__":
    main()
