"""Half an hour of everything at once: cancelled calls, reloads, migrations, evictions; every answer is checked.

    python benchmarks/hostile/soak.py [--minutes 30] [--leak] [--out FILE]

Clients adapt, update, predict and delete without pause, and cancel every fifth call at a random moment. Their
adaptations take many times the memory that the server has for them, so that they give way and come back. Meanwhile one
model is unloaded and loaded again, and the adaptations of another move from one version to the other and back. Every
answer is compared with what an idle server answered to the same question. The memory of the server's processes may grow
only by the ids that the server remembers of what was deleted, of which there is a limit; at the end nothing may be left
in it. Writes soak.json; exits with 1 if something was wrong.

With --leak, the server has memory for all adaptations, and nobody deletes any, which must be noticed: it exits with 1.
"""

import argparse
import json
import random
import re
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
from numpy.typing import NDArray

from innerloop import Client, InnerloopError
from innerloop.tensors import encode_tensor
from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1 import tensor_pb2
from innerloop.v1.adaptation_pb2_grpc import AdaptationServiceStub
from innerloop_command.server_process import ServerProcess

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

CLIENTS, WAYS, QUERIES, TASKS = 6, 3, 4, 20
FRONT_ENDS, LANES = 2, 2
MOVING, RELOADED, STEADY = "moving", "reloaded", "steady"

CANCELLED, DELETED = 0.2, 0.5
"""Share of calls that are cancelled, and chance that a client with `MOST` adaptations deletes one before the next."""

UPDATED = 0.2
"""Chance that a client gives an adaptation other examples in place of asking it."""

MOST = 100
"""Adaptations that a client keeps at most."""

ROOM = 40
"""Adaptations for which the server has memory, of the `CLIENTS * MOST` that there are."""

CALL_SECONDS, LOOK_SECONDS, CHANGE_SECONDS = 30.0, 2.0, 3.0

SHOWN = 30
"""Looks at the memory that are written down."""

TOLERANCE = 1e-4
"""Largest change of a probability: requests share batches of other sizes, and states are computed again."""

MEANWHILE = {"NOT_FOUND", "UNAVAILABLE", "FAILED_PRECONDITION"}
"""What callers of a model may be told while it is unloaded and loaded."""

GROWTH = 3e6
"""Bytes a minute by which memory may grow in the second half of the time. At a hundred calls a second, a leak of 500
bytes a call is more."""


@dataclass
class Asked:
    """What a client has of one adaptation: its id, its model, and the number of its task.

    There are several where it is not known whether updates that were cancelled have happened.
    """

    id: str
    model: str
    tasks: list[int]


@dataclass
class Outcome:
    """What happened, over all clients."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    counts: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)

    def count(self, what: str) -> None:
        """Count something that may happen."""
        with self.lock:
            self.counts[what] += 1

    def problem(self, what: str) -> None:
        """Count something that may not happen."""
        with self.lock:
            self.problems[what] += 1


class References:
    """What an idle server answers to the queries of each task, for each version of each model.

    Args:
        target: address of the server.
        shapes: of one uint8 example, by name of a model.
        versions: of each model.
    """

    def __init__(self, target: str, shapes: dict[str, tuple[int, ...]], versions: dict[str, Sequence[str]]) -> None:
        self.shapes = shapes
        self._answers: dict[tuple[str, int], list[NDArray[np.float32]]] = {}
        with grpc.insecure_channel(target) as channel:
            stub = AdaptationServiceStub(channel)
            for model, names in versions.items():
                for task in range(TASKS):
                    self._answers[model, task] = [self._answer(stub, model, name, task) for name in names]

    def _answer(self, stub: AdaptationServiceStub, model: str, version: str, task: int) -> NDArray[np.float32]:
        request = pb.AdaptPredictRequest(model=version, support=self.support(model, task), query=self.query(model))
        answer = stub.AdaptPredict(request, timeout=CALL_SECONDS).predictions.probabilities
        return np.frombuffer(answer.data, np.float32)

    def support(self, model: str, task: int) -> pb.Support:
        """The support set of a task."""
        labels = pb.Labels(values=[f"class {way}" for way in range(WAYS)])
        return pb.Support(inputs=_inputs(self.shapes[model], WAYS, task + 1), labels=labels)

    def query(self, model: str) -> tensor_pb2.Inputs:
        """The queries, the same for all tasks."""
        return _inputs(self.shapes[model], QUERIES, 0)

    def right(self, asked: Asked, answer: pb.PredictResponse) -> bool:
        """Whether an answer is that of one version of the model, after one of the tasks that it may have learned."""
        given = np.frombuffer(answer.predictions.probabilities.data, np.float32)
        expected = [each for task in asked.tasks for each in self._answers[asked.model, task]]
        return any(np.allclose(given, each, rtol=0, atol=TOLERANCE) for each in expected)


def _inputs(shape: tuple[int, ...], count: int, seed: int) -> tensor_pb2.Inputs:
    random_images = np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
    return tensor_pb2.Inputs(tensor=encode_tensor(random_images))


def soak(server: ServerProcess, references: References, seconds: float, *, deletes: bool) -> dict[str, Any]:
    """Load a server with everything at once.

    Args:
        server: server that is running, of the models of `write_models`.
        references: right answers.
        seconds: of load.
        deletes: whether clients delete, so that they have no more than `MOST` adaptations.

    Returns:
        "counts" of what happened, "problems", "resident_bytes" of the server's processes over time by what they do,
        their "growth" in bytes a minute, "found": where states of adaptations came from, and "left": what the server
        holds in memory after all adaptations were deleted.
    """
    outcome, over = Outcome(), threading.Event()
    times, resident = list[float](), list[Counter[str]]()
    threads = [
        threading.Thread(target=_client, args=(server.target, references, outcome, over, deletes, number))
        for number in range(CLIENTS)
    ]
    threads += [threading.Thread(target=change, args=(server.target, outcome, over)) for change in (_reload, _migrate)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.process.poll() is None:
        times.append(time.monotonic())
        resident.append(_resident(server))
        time.sleep(min(LOOK_SECONDS, seconds / 20))
    over.set()
    for thread in threads:
        thread.join()
    if server.process.poll() is not None:
        outcome.problem(f"the server ended with code {server.process.returncode}")
    return {
        "counts": dict(sorted(outcome.counts.items())),
        "problems": dict(outcome.problems),
        "resident_bytes": [dict(each) for each in resident[:: max(len(resident) // SHOWN, 1)]],
        "growth": round(growth(times, [each.total() for each in resident])),
        "found": _found(server),
        "left": _delete_all(server),
    }


def growth(times: Sequence[float], resident: Sequence[int]) -> float:
    """Bytes a minute by which memory grows in the second half of the times, in seconds."""
    half = len(times) // 2
    return float(60 * np.polyfit(times[half:], resident[half:], 1)[0])


def _client(
    target: str, references: References, outcome: Outcome, over: threading.Event, deletes: bool, seed: int
) -> None:
    chance, mine = random.Random(seed), list[Asked]()
    with grpc.insecure_channel(target) as channel:
        stub = AdaptationServiceStub(channel)
        while not over.is_set():
            full = deletes and len(mine) >= MOST
            if full and chance.random() < DELETED:
                asked = mine.pop(chance.randrange(len(mine)))
                request = pb.DeleteAdaptationRequest(adaptation_id=asked.id)
                _call(stub.DeleteAdaptation, request, asked.model, outcome, None)
            elif not full and (not mine or chance.random() < 1 / 3):
                model, task = chance.choice((MOVING, RELOADED, STEADY)), chance.randrange(TASKS)
                adapt = pb.AdaptRequest(model=model, support=references.support(model, task))
                if (made := _call(stub.Adapt, adapt, model, outcome, chance)) is not None:
                    mine.append(Asked(made.adaptation.id, model, [task]))
            elif chance.random() < UPDATED:
                asked, task = chance.choice(mine), chance.randrange(TASKS)
                support = references.support(asked.model, task)
                update = pb.UpdateAdaptationRequest(adaptation_id=asked.id, support=support)
                answered = _call(stub.UpdateAdaptation, update, asked.model, outcome, chance) is not None
                asked.tasks = [task] if answered else [*asked.tasks, task]
            else:
                asked = chance.choice(mine)
                predict = pb.PredictRequest(adaptation_id=asked.id, query=references.query(asked.model))
                answer = _call(stub.Predict, predict, asked.model, outcome, chance)
                if answer is not None and not references.right(asked, answer):
                    outcome.problem(f"a wrong answer of {asked.model}")


def _call(method: Any, request: Any, model: str, outcome: Outcome, chance: random.Random | None) -> Any:
    """One call, which `chance` may cancel on its way; None if it was not answered."""
    kind = type(request).__name__.removesuffix("Request")
    call = method.future(request, timeout=CALL_SECONDS)
    if chance is not None and chance.random() < CANCELLED:
        time.sleep(chance.uniform(0, 0.05))
        call.cancel()
    try:
        answer = call.result()
    except grpc.FutureCancelledError:
        outcome.count(f"{kind} cancelled")
        return None
    except grpc.RpcError as error:
        status = error.code().name
        if model == RELOADED and status in MEANWHILE:
            outcome.count(f"{kind} of a model that was not there")
        else:
            outcome.problem(f"{kind} of {model}: {status}, {error.details()}")
        return None
    outcome.count(f"{kind} answered")
    return answer


def _reload(target: str, outcome: Outcome, over: threading.Event) -> None:
    with Client(target) as client:
        while not over.wait(CHANGE_SECONDS):
            try:
                client.unload_model(RELOADED)
                time.sleep(CHANGE_SECONDS / 10)
                client.load_model(RELOADED)
                outcome.count("reloads")
            except InnerloopError as error:
                outcome.problem(f"reload: {error}")


def _migrate(target: str, outcome: Outcome, over: threading.Event) -> None:
    with Client(target) as client:
        version = 1
        while not over.wait(CHANGE_SECONDS):
            version = 3 - version
            try:
                client.migrate(MOVING, to=str(version))
                while client.migration(MOVING).state == "running" and not over.wait(0.1):
                    pass
            except InnerloopError as error:
                outcome.problem(f"migration: {error}")
                continue
            outcome.count("migrations")


def _resident(server: ServerProcess) -> Counter[str]:
    """Resident bytes of the server's processes by what they do."""
    found: Counter[str] = Counter()
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(server.process.pid)
        found["engine"] = process.memory_info().rss
        for child in process.children():
            with suppress(psutil.NoSuchProcess):
                module = next((part for part in child.cmdline() if part.startswith("innerloop_server.")), "other")
                found[module.rpartition(".")[2]] += child.memory_info().rss
    return found


def _found(server: ServerProcess) -> dict[str, int]:
    """Uses of adaptations by where their states came from."""
    tiers: Counter[str] = Counter()
    for labels, value in _metric(server, "adaptations_found_total").items():
        tiers[re.findall(r'tier="(.*?)"', labels)[0]] += int(value)
    return dict(tiers)


def _delete_all(server: ServerProcess) -> dict[str, float]:
    """Delete all adaptations, those of cancelled calls too; what the server holds in memory then, by metric."""
    with Client(server.target) as client:
        for adaptation in list(client.list_adaptations()):
            client.delete_adaptation(adaptation.id)
    return {name: sum(_metric(server, name).values()) for name in ("adaptations_held", "adaptations_bytes")}


def _metric(server: ServerProcess, name: str) -> dict[str, float]:
    """Values of a metric by its labels."""
    with urllib.request.urlopen(server.metrics_url) as answer:
        found = re.findall(rf"^innerloop_{name}(.*?) (\S+)$", answer.read().decode(), re.MULTILINE)
    return {labels: float(value) for labels, value in found}


def write_models(folder: Path) -> Path:
    """Write two versions of one model, and two other models."""
    import torch
    from untrained import SPECS, initial_params, write_bundle

    from innerloop_learner import build_learner

    spec = SPECS["anil"]
    for version in (1, 2):
        params = build_learner(spec).init(torch.Generator().manual_seed(version))
        write_bundle(folder / MOVING / str(version), spec, params)
    (folder / MOVING / "aliases.toml").write_text('stable = "1"\n')
    write_bundle(folder / RELOADED, SPECS["protonet"], initial_params(SPECS["protonet"]))
    write_bundle(folder / STEADY, spec, initial_params(spec))
    return folder


def run(folder: Path, seconds: float, *, leak: bool = False, **settings: Any) -> dict[str, Any]:
    """Start a server in an empty folder, and soak it; see `soak` for what is returned."""
    from untrained import IMAGES

    models = write_models(folder / "models")
    room = 2**30 if leak else ROOM * 2**14
    with ServerProcess(
        models, store=f"sqlite:{folder / 'store'}", admin=True, adaptation_bytes=room, **settings
    ) as server:
        versions = {MOVING: [f"{MOVING}@1", f"{MOVING}@2"], RELOADED: [RELOADED], STEADY: [STEADY]}
        references = References(server.target, dict.fromkeys(versions, IMAGES.shape), versions)
        found = soak(server, references, seconds, deletes=not leak)
        found["tracebacks_in_log"] = server.log.count("Traceback")
    return {**found, "exit_code": server.process.returncode}


def is_well(found: dict[str, Any]) -> bool:
    """Whether nothing was wrong."""
    left = any(found["left"].values())
    flat = found["growth"] <= GROWTH
    return flat and not (found["problems"] or left or found["tracebacks_in_log"] or found["exit_code"])


def main() -> None:
    """Soak a server of untrained models and write soak.json."""
    from machine import describe_machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--leak", action="store_true", help="keep everything, which must be noticed")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("soak.json"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        found = run(Path(folder), given.minutes * 60, leak=given.leak, frontends=FRONT_ENDS, lanes=LANES)
    content = {"machine": describe_machine(), "minutes": given.minutes, "leak": given.leak, **found}
    given.out.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(content, indent=2))
    sys.exit(not is_well(found))


if __name__ == "__main__":
    main()
