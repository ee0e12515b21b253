"""Kills a server, or a process of it, at random moments under load, and asks for everything that was answered.

    python benchmarks/durability/crashes.py [--store sqlite|redis] [--rounds 100] [--seconds 3.0]

Clients adapt, update, predict and delete without pause. After up to so many seconds the victim is killed with SIGKILL:
in turn the server, and with it everything it started, a worker process that computes, or a front end. Where it was the
server, a new one starts on the same store. The server that is there then must know every adaptation whose making was
answered, in the revision of the last update that was answered, or of one that was not and happened as a whole; answer
as before with it; return it for its request id and carry out no update twice; and know none whose deletion was
answered. Writes crashes-STORE.json; exits with 1 if anything was lost.
"""

import argparse
import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
from numpy.typing import NDArray

from innerloop.tensors import encode_tensor
from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1 import tensor_pb2
from innerloop.v1.adaptation_pb2_grpc import AdaptationServiceStub
from innerloop_command.server_process import ServerProcess

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

CLIENTS, WAYS, QUERIES = 4, 3, 4
FRONT_ENDS, LANES = 2, 2
DELETED, ASKED_AGAIN, UPDATED = 0.2, 0.3, 0.3
"""Shares of adaptations that are deleted, that are asked again, and that learn more, after they were made."""

SERVER = "server"
MODULES = {"worker": "innerloop_server.engine.pytorch.worker_process", "front end": "innerloop_server.frontend"}
"""What a process of a server runs, by the name of the victim."""

VICTIMS = (SERVER, *MODULES)

PAUSE_SECONDS = 0.05
"""How long a client waits after it was told that the server is not there."""

TOLERANCE = 1e-4
"""Largest change of a probability: after the restart, requests share batches of other sizes, and some states are
computed again."""


@dataclass
class Made:
    """An adaptation whose making was answered.

    Attributes:
        request: that made it.
        id: of it.
        answer: probabilities for the queries of its seed, once it was asked.
        revision: of the last update that was answered.
        updates: requests of all updates, the last of which may not have been answered.
    """

    request: pb.AdaptRequest
    id: str
    answer: NDArray[np.float32] | None = None
    revision: int = 1
    updates: list[pb.UpdateAdaptationRequest] = field(default_factory=list)


@dataclass
class Memory:
    """Answers that clients were given."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    made: list[Made] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    unanswered: list[pb.AdaptRequest] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def crash(
    models: Path,
    shapes: dict[str, tuple[int, ...]],
    settings: dict[str, Any],
    seconds: float,
    seed: int,
    victim: str = SERVER,
) -> Counter[str]:
    """One round: load, a kill, and the questions; returns counts, with "problem: ..." for what was wrong.

    Args:
        models: folder of the models.
        shapes: of one uint8 example, by name of a model to use.
        settings: of the server; they name the store, which must outlive it.
        seconds: of load; the kill comes somewhere in the last four fifths, and ends it if it hits the server.
        seed: of everything that is random.
        victim: one of `VICTIMS`.
    """
    chance = random.Random(seed)
    memory, over = Memory(), threading.Event()
    with ServerProcess(models, **settings) as server:
        clients = [
            threading.Thread(target=_load, args=(server.target, shapes, memory, over, seed * CLIENTS + number))
            for number in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        before = chance.uniform(0.2, 1.0) * seconds
        time.sleep(before)
        if victim == SERVER:
            server.process.kill()
            server.process.wait()
        else:
            chance.choice(_children(server, MODULES[victim])).kill()
            time.sleep(seconds - before)
        over.set()
        for client in clients:
            client.join()
        if victim != SERVER:
            return _check(server, shapes, memory)
    with ServerProcess(models, **settings) as server:
        return _check(server, shapes, memory)


def _children(server: ServerProcess, module: str) -> list[psutil.Process]:
    """The server's processes of a module, which may take a moment to start."""
    while True:
        children = psutil.Process(server.process.pid).children()
        if found := [child for child in children if module in child.cmdline()]:
            return found
        time.sleep(PAUSE_SECONDS)


def _check(server: ServerProcess, shapes: dict[str, tuple[int, ...]], memory: Memory) -> Counter[str]:
    counts = Counter(made=len(memory.made), deleted=len(memory.deleted), unanswered=len(memory.unanswered))
    counts["updates"] = sum(made.revision - 1 for made in memory.made)
    with _stub(server.target) as stub, ThreadPoolExecutor(CLIENTS) as pool:
        problems = [*pool.map(lambda made: _check_made(stub, shapes, made), memory.made)]
        problems += pool.map(lambda each: _check_deleted(stub, each), memory.deleted)
        problems += pool.map(lambda request: _check_unanswered(stub, request), memory.unanswered)
    counts.update(f"problem: {problem}" for problem in [*memory.problems, *filter(None, problems)])
    return counts


def _load(target: str, shapes: dict[str, tuple[int, ...]], memory: Memory, over: threading.Event, seed: int) -> None:
    chance, number = random.Random(seed), 0
    with _stub(target) as stub:
        while not over.is_set():
            number += 1
            request = _request(chance.choice(sorted(shapes)), shapes, seed * 100_000 + number)
            try:
                made = Made(request, stub.Adapt(request, timeout=20).adaptation.id)
            except grpc.RpcError as error:
                with memory.lock:
                    memory.unanswered.append(request)
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    over.wait(PAUSE_SECONDS)
                continue
            with memory.lock:
                memory.made.append(made)
            try:
                made.answer = _ask(stub, shapes, made)
                if chance.random() < DELETED:
                    memory.made.remove(made)  # whether it is deleted is unknown until the answer
                    stub.DeleteAdaptation(pb.DeleteAdaptationRequest(adaptation_id=made.id), timeout=20)
                    memory.deleted.append(made.id)
                elif chance.random() < UPDATED:
                    _update(stub, shapes, made, seed * 100_000 + number)
                elif chance.random() < ASKED_AGAIN:
                    earlier = chance.choice(memory.made)
                    known, now = earlier.answer, _ask(stub, shapes, earlier)
                    if known is not None and known is earlier.answer and not _same(known, now):
                        memory.problems.append("another answer before the kill")
            except grpc.RpcError:
                continue


def _check_made(stub: AdaptationServiceStub, shapes: dict[str, tuple[int, ...]], made: Made) -> str:
    """Fault of an adaptation after the restart; empty for none."""
    try:
        answer = _ask(stub, shapes, made)
        again = stub.Adapt(made.request, timeout=60).adaptation.id
        if problem := _check_updates(stub, made):
            return problem
    except grpc.RpcError as error:
        return f"lost, {error.code().name}"
    if made.answer is not None and not _same(made.answer, answer):
        return "another answer"
    return "" if again == made.id else "its request made another"


def _check_updates(stub: AdaptationServiceStub, made: Made) -> str:
    """Fault of the updates of an adaptation; empty for none."""
    found = stub.ListExamples(pb.ListExamplesRequest(adaptation_id=made.id), timeout=60)
    most = 1 + len(made.updates)
    if not made.revision <= found.revision <= most or len(found.example_ids) != WAYS + found.revision - 1:
        return f"revision {found.revision} of {len(found.example_ids)} examples instead of {made.revision} to {most}"
    for request in made.updates:
        stub.UpdateAdaptation(request, timeout=60)
    found = stub.ListExamples(pb.ListExamplesRequest(adaptation_id=made.id), timeout=60)
    return "" if found.revision == most else "a repeated update happened twice"


def _check_deleted(stub: AdaptationServiceStub, adaptation_id: str) -> str:
    try:
        stub.GetAdaptation(pb.GetAdaptationRequest(adaptation_id=adaptation_id), timeout=60)
    except grpc.RpcError as error:
        return "" if error.code() is grpc.StatusCode.NOT_FOUND else f"deleted, {error.code().name}"
    return "a deleted one is back"


def _check_unanswered(stub: AdaptationServiceStub, request: pb.AdaptRequest) -> str:
    """A request that was not answered can be repeated, and then repeated again."""
    first, second = (stub.Adapt(request, timeout=60).adaptation.id for _ in range(2))
    return "" if first == second else "a repeated request made two"


def _request(model: str, shapes: dict[str, tuple[int, ...]], seed: int) -> pb.AdaptRequest:
    support = pb.Support(inputs=_inputs(shapes[model], WAYS, seed))
    support.labels.values.extend(f"class {way}" for way in range(WAYS))
    return pb.AdaptRequest(model=model, support=support, request_id=f"request {seed}")


def _update(stub: AdaptationServiceStub, shapes: dict[str, tuple[int, ...]], made: Made, seed: int) -> None:
    """Learn one more example, twice."""
    for number in range(2):
        add = pb.Support(inputs=_inputs(shapes[made.request.model], 1, seed + number))
        add.labels.values.append("class 0")
        request = pb.UpdateAdaptationRequest(adaptation_id=made.id, add=add, request_id=f"update {number}")
        made.updates.append(request)
        made.answer = None  # whether it is the old one or another is unknown until the answer
        made.revision = stub.UpdateAdaptation(request, timeout=20).adaptation.revision
    made.answer = _ask(stub, shapes, made)


def _ask(stub: AdaptationServiceStub, shapes: dict[str, tuple[int, ...]], made: Made) -> NDArray[np.float32]:
    query = _inputs(shapes[made.request.model], QUERIES, 1)
    answer = stub.Predict(pb.PredictRequest(adaptation_id=made.id, query=query), timeout=60).predictions.probabilities
    return np.frombuffer(answer.data, np.float32)


def _same(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    return bool(np.allclose(one, other, rtol=0, atol=TOLERANCE))


def _inputs(shape: tuple[int, ...], count: int, seed: int) -> tensor_pb2.Inputs:
    random_images = np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
    return tensor_pb2.Inputs(tensor=encode_tensor(random_images))


@contextmanager
def _stub(target: str) -> Iterator[AdaptationServiceStub]:
    with grpc.insecure_channel(target, [("grpc.enable_retries", 0)]) as channel:
        yield AdaptationServiceStub(channel)


@contextmanager
def redis_url(folder: Path) -> Iterator[str]:
    """A Redis that writes everything to its disk before it answers."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        raise SystemExit("no redis-server or valkey-server is installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        "--port",
        str(port),
        "--dir",
        str(folder),
        "--save",
        "",
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
    ]
    process = subprocess.Popen([program, "--bind", "127.0.0.1", *options], stdout=subprocess.DEVNULL)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Run many rounds and write their counts."""
    from machine import describe_machine
    from untrained import SPECS, write_bundles

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=("sqlite", "redis"), default="sqlite")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    totals: dict[str, Counter[str]] = {victim: Counter() for victim in VICTIMS}
    shapes = {name: spec.input.shape for name, spec in SPECS.items()}
    with tempfile.TemporaryDirectory(prefix="durability-") as scratch:
        models = write_bundles(Path(scratch) / "models")
        with redis_url(Path(scratch)) if given.store == "redis" else nullcontext(f"sqlite:{scratch}/store") as store:
            settings = {"store": store, "frontends": FRONT_ENDS, "lanes": LANES}
            for number in range(given.rounds):
                victim = VICTIMS[number % len(VICTIMS)]
                counts = crash(models, shapes, settings, given.seconds, number, victim)
                totals[victim].update(counts, rounds=1)
                print(number, victim, dict(counts), flush=True)
    content = {
        "machine": describe_machine(),
        "settings": {"seconds": given.seconds, "frontends": FRONT_ENDS, "lanes": LANES, "clients": CLIENTS},
        "results": totals,
    }
    file = Path(__file__).with_name(f"crashes-{given.store}.json")
    file.write_text(json.dumps(content, indent=2) + "\n")
    sys.exit(any(key.startswith("problem") for counts in totals.values() for key in counts))


if __name__ == "__main__":
    main()
