"""More load than a server can compute: how much is answered in time, and what others notice of it.

    python benchmarks/overload/run.py [--model maml] [--seconds 10] [--rounds 3] [--times 3] [--flood 10]

Goodput: the capacity of a closed loop of 32 clients, then an open loop at a multiple of it, with deadlines of one
second; several rounds, of which the middle one by its part of the capacity counts. Fairness: two callers with
certificates of their own; one sends a twentieth of the capacity, alone and beside another that sends a multiple of the
capacity over 100 connections. The load is made on the same machine, on the other half of its cores, so that it takes
nothing away from the server. Writes results.json beside this file, where there is a GPU results-cuda.json; other
models' figures there stay as they were.
"""

import argparse
import json
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import trustme

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine, results_file
from untrained import SPECS, write_bundles

from innerloop import TLS
from innerloop_command.bench import BenchSettings, ClosedLoop, LoadResult, OpenLoop, run_bench
from innerloop_command.server_process import ServerProcess

DEADLINE_SECONDS = 1.0
QUIET_SHARE = 0.05
Load = ClosedLoop | OpenLoop
CLIENTS, CONNECTIONS, GREEDY_CONNECTIONS = 32, 4, 100


class Measuring:
    """Measures one model on a running server.

    Args:
        model: its name.
        server: that runs it.
        seconds: of each load, besides warming up.
        authority: gives out certificates.
    """

    def __init__(self, model: str, server: ServerProcess, seconds: float, authority: trustme.CA) -> None:
        self._model = model
        self._server = server
        self._seconds = seconds
        self._authority = authority

    def load(self, owner: str, load: Load, connections: int = CONNECTIONS) -> LoadResult:
        """Make one load as a caller of that name; requests are given up after a second."""
        certificate = self._authority.issue_cert(f"{owner}@example.org", common_name=owner)
        tls = TLS(
            self._authority.cert_pem.bytes(),
            b"".join(blob.bytes() for blob in certificate.cert_chain_pems),
            certificate.private_key_pem.bytes(),
        )
        settings = BenchSettings(
            model=self._model,
            loads=(load,),
            server=self._server.target,
            tls=tls,
            mix={"Adapt": 1.0},
            duration=self._seconds,
            connections=connections,
            timeout=30.0 if isinstance(load, ClosedLoop) else DEADLINE_SECONDS,
        )
        return run_bench(settings).loads[0]

    def goodput(self, times: float, rounds: int) -> dict[str, Any]:
        """Answers in time, at a multiple of the capacity: the middle one of several rounds, and the part in each."""
        measured = [self._overload(times) for _ in range(rounds)]
        middle = sorted(measured, key=lambda each: each["goodput_of_capacity"])[rounds // 2]
        return {**middle, "goodput_of_capacity_by_round": [each["goodput_of_capacity"] for each in measured]}

    def _overload(self, times: float) -> dict[str, Any]:
        """The capacity, and right after it the answers in time at a multiple of it."""
        capacity = self.load("anyone", ClosedLoop(CLIENTS)).throughput
        overload = self.load("anyone", OpenLoop(times * capacity))
        return {
            "capacity_per_s": capacity,
            "offered_per_s": times * capacity,
            "goodput_per_s": overload.throughput,
            "goodput_of_capacity": overload.throughput / capacity,
            "admitted": _summary(overload),
        }

    def fairness(self, capacity: float, flood: float) -> dict[str, Any]:
        """Answers to a quiet caller alone, and beside a greedy one."""
        quiet = OpenLoop(QUIET_SHARE * capacity)
        alone = self.load("quiet", quiet)
        with ThreadPoolExecutor(2) as both:
            greedy = both.submit(self.load, "greedy", OpenLoop(flood * capacity), GREEDY_CONNECTIONS)
            beside = both.submit(self.load, "quiet", quiet)
        return {
            "quiet_alone": _summary(alone),
            "quiet_beside": _summary(beside.result()),
            "greedy": {"offered_per_s": flood * capacity, **_summary(greedy.result())},
        }


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="maml", choices=sorted(SPECS))
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load, besides warming up")
    parser.add_argument("--rounds", type=int, default=3, help="of capacity and overload, by turns")
    parser.add_argument("--times", type=float, default=3.0, help="load of the open loop, in capacities")
    parser.add_argument("--flood", type=float, default=10.0, help="load of the greedy caller, in capacities")
    given = parser.parse_args()
    authority = trustme.CA()
    cores = sorted(os.sched_getaffinity(0))
    servers, callers = cores[: len(cores) // 2] or cores, cores[len(cores) // 2 :]
    with tempfile.TemporaryDirectory(prefix="overload-") as scratch:
        folder = Path(scratch)
        models = write_bundles(folder / "models", {given.model: SPECS[given.model]})
        os.sched_setaffinity(0, servers)  # which the server inherits
        with ServerProcess(models, **_tls_settings(authority, folder)) as server:
            os.sched_setaffinity(0, callers)
            measuring = Measuring(given.model, server, given.seconds, authority)
            goodput = measuring.goodput(given.times, given.rounds)
            results = {"goodput": goodput, "fairness": measuring.fairness(goodput["capacity_per_s"], given.flood)}
    file = results_file(__file__, "auto")
    content = json.loads(file.read_text()) if file.exists() else {}
    split = {"server": len(servers), "callers": len(callers)}
    content[given.model] = {"machine": describe_machine(), "cores": split, "seconds": given.seconds, **results}
    file.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(results, indent=2))


def _summary(load: LoadResult) -> dict[str, Any]:
    """Outcomes, and latencies of the answers in milliseconds."""
    measured = load.rpcs["Adapt"]
    return {
        "answers_per_s": load.throughput,
        "outcomes": dict(measured.outcomes),
        "not_sent": load.measured.dropped,
        "latency": measured.latency.summary(),
        "generator_too_slow": load.measures_itself,
    }


def _tls_settings(authority: trustme.CA, folder: Path) -> dict[str, Any]:
    """Settings of a server that tells its callers apart by their certificates."""
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(folder / "certificate.pem", append=True)
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return {
        "tls_certificate": folder / "certificate.pem",
        "tls_key": folder / "key.pem",
        "tls_client_ca": folder / "ca.pem",
    }


if __name__ == "__main__":
    main()
