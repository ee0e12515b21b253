"""Cost of frozen encoders: beside plain ONNX Runtime, and in a server.

    python benchmarks/encoders/speed.py [--encoders efficientnet-lite0 ...] [--seconds 8] [--clients 32] [--out FILE]

For each encoder of the catalogue that is named:

- examples a second of the encoder as trainer and server use it (scaling of pixels or splitting into tokens included),
  and of ONNX Runtime alone on inputs that were prepared beforehand, by turns: on one thread, on as many as a server
  takes for a computation that is alone, and so on as many lanes at once as a server has;
- latency of Adapt and of Predict over gRPC, of one client and of many, of tasks of 5 ways and 1 shot that ask about 5
  queries; the part of it that the encoder takes; and the memory of the server's process.

Writes speed.json, in which encoders that are not named stay as they were, and prints a line for each measurement.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from innerloop_command.bench import BenchSettings, run_bench
from innerloop_command.bench.settings import ClosedLoop
from innerloop_command.server_process import ServerProcess
from innerloop_learner.encoders import FrozenEncoder, pack_texts, unpack_texts
from innerloop_learner.encoders.session import CPU_BATCH, Computing
from innerloop_learner.encoders.spec import ENCODER, TOKENIZER
from innerloop_server.engine.cores import lone_threads, usable_cores
from innerloop_trainer.encoders import open_files, read_encoder
from innerloop_trainer.untrained import HeadOptions, write_untrained

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine

ENCODERS = ("efficientnet-lite0", "all-minilm-l6-v2", "speech-embedding")
EXAMPLES = 32
TURNS, TURN_SECONDS = 24, 0.5
WAYS, SHOTS, QUERIES = 5, 1, 5
WORDS = ("how", "do", "I", "where", "is", "my", "card", "account", "transfer", "money", "why", "was", "not", "the")

Feed = dict[str, NDArray[Any]]


def main() -> None:
    """Measure every encoder and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", default=ENCODERS, help="names in the catalogue")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load")
    parser.add_argument("--turns", type=int, default=TURNS, help="of each side of a comparison")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("speed.json"), help="JSON to write")
    given = parser.parse_args()
    results: dict[str, Any] = json.loads(given.out.read_text())["results"] if given.out.is_file() else {}
    for name in given.encoders:
        files = read_encoder(name, None)
        rates = {}
        for threads, lanes in sorted({(1, 1), (lone_threads(), 1), (lone_threads(), usable_cores())}):
            found = compare(open_files(files, Computing(threads)), threads, lanes, given.turns)
            rates[f"{threads} threads, {lanes} lanes"] = found
            print(f"{name}, {threads} threads, {lanes} lanes: {_rates(found)}", flush=True)
        with tempfile.TemporaryDirectory(prefix="encoders-") as folder:
            write_untrained(Path(folder) / name, name, open_files(files, Computing()), HeadOptions())
            served = serve(Path(folder), name, given)
        results[name] = {"examples_per_second": rates, "served": served}
    content = {"machine": describe_machine(), "results": results}
    given.out.write_text(json.dumps(content, indent=2) + "\n")


def compare(encoder: FrozenEncoder, threads: int, lanes: int, turns: int) -> dict[str, float]:
    """Examples a second of an encoder and of plain ONNX Runtime, and their share.

    The share is the median over pairs of turns; that of processor time also tells on a machine that others use.
    """
    raw = make_inputs(encoder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    graph = encoder.files[ENCODER]
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    feeds = list(prepare(encoder, session, raw))
    sides: dict[str, Callable[[], object]] = {
        "plain": lambda: [session.run([encoder.spec.output], feed) for feed in feeds],
        "encoder": lambda: encoder.encode(raw),
    }
    rates: dict[str, list[float]] = {side: [] for side in sides}
    cpu: dict[str, list[float]] = {side: [] for side in sides}
    with ThreadPoolExecutor(lanes) as pool:
        for turn in range(turns):
            # Who is first changes, so that what slows the machine down hits both.
            for side in sorted(sides, reverse=bool(turn % 2)):
                began = time.process_time()
                done, seconds = zip(*pool.map(_work, [sides[side]] * lanes), strict=True)
                cpu[side].append((time.process_time() - began) / sum(done))
                rates[side].append(sum(count / taken for count, taken in zip(done, seconds, strict=True)))
    found = {side: median(values) for side, values in rates.items()}
    found["share"] = median(own / plain for own, plain in zip(rates["encoder"], rates["plain"], strict=True))
    found["share_by_cpu_time"] = median(cpu["plain"]) / median(cpu["encoder"])
    return found


def make_inputs(encoder: FrozenEncoder) -> NDArray[Any]:
    """Random raw inputs [EXAMPLES, ...]: noise, or texts of as many words as questions have."""
    random = np.random.default_rng(0)
    if encoder.spec.input == "texts":
        return pack_texts([" ".join(random.choice(WORDS, random.integers(5, 20))) for _ in range(EXAMPLES)])
    shape = (EXAMPLES, *encoder.spec.shape)
    if encoder.spec.input == "images":
        return random.integers(0, 256, shape, dtype=np.uint8)
    return (0.1 * random.standard_normal(shape)).clip(-1, 1).astype(np.float32)


def prepare(encoder: FrozenEncoder, session: Any, raw: NDArray[Any]) -> Iterator[Feed]:
    """The same inputs as the graph takes them, CPU_BATCH at a time; texts are sorted by length and padded."""
    spec, names = encoder.spec, [each.name for each in session.get_inputs()]
    if spec.input == "texts":
        yield from _prepare_texts(encoder, names, unpack_texts(raw))
        return
    ready = raw
    if spec.input == "images" and session.get_inputs()[0].type == "tensor(float)":
        mean, std = (np.array(values, np.float32).reshape(-1, 1, 1) for values in (spec.mean, spec.std))
        ready = (raw.astype(np.float32) * np.float32(spec.scale) - mean) / std
    for start in range(0, len(ready), CPU_BATCH):
        yield {names[0]: ready[start : start + CPU_BATCH]}


def _prepare_texts(encoder: FrozenEncoder, names: Sequence[str], texts: Sequence[str]) -> Iterator[Feed]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(encoder.files[TOKENIZER].decode())
    tokenizer.enable_truncation(encoder.spec.max_tokens)
    tokenizer.no_padding()
    in_order = sorted(texts, key=lambda text: len(tokenizer.encode(text).ids))
    tokenizer.enable_padding()
    for start in range(0, len(in_order), CPU_BATCH):
        tokens = tokenizer.encode_batch(in_order[start : start + CPU_BATCH])
        found = {
            "input_ids": [each.ids for each in tokens],
            "attention_mask": [each.attention_mask for each in tokens],
            "token_type_ids": [each.type_ids for each in tokens],
        }
        yield {name: np.array(found[name], np.int64) for name in names}


def serve(models: Path, name: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Latency of Adapt and Predict in ms, and the server's memory, by number of clients."""
    found = []
    with ServerProcess(models) as server:
        for clients in (1, given.clients):
            for rpc in ("Adapt", "Predict"):
                settings = BenchSettings(
                    name,
                    (ClosedLoop(clients),),
                    server=server.target,
                    mix={rpc: 1.0},
                    adaptations=16,
                    ways=WAYS,
                    shots=SHOTS,
                    queries=QUERIES,
                    duration=given.seconds,
                    metrics_url=server.metrics_url,
                    server_pid=server.process.pid,
                )
                (load,) = run_bench(settings).loads
                measured = load.rpcs[rpc]
                found.append(
                    {
                        "rpc": rpc,
                        "clients": clients,
                        "answers_per_second": load.rate(rpc),
                        "p50_ms": 1e3 * measured.latency.percentile(50),
                        "p99_ms": 1e3 * measured.latency.percentile(99),
                        "encoder_ms": 1e3 * measured.phases["encoder"].mean,
                        "memory_mib": load.server.device_memory_bytes["cpu resident"] / 2**20,
                        "outcomes": dict(measured.outcomes),
                    }
                )
                print(f"{name}: {found[-1]}", flush=True)
    return found


def _work(work: Callable[[], object]) -> tuple[int, float]:
    """Work on all inputs again and again; the number of examples, and the seconds that they took."""
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < TURN_SECONDS:
        work()
        done += EXAMPLES
    return done, time.perf_counter() - started


def _rates(found: dict[str, float]) -> str:
    shares = f"{found['share']:.0%}, by processor time {found['share_by_cpu_time']:.0%}"
    return f"{found['encoder']:.1f} of {found['plain']:.1f} examples/s ({shares})"


if __name__ == "__main__":
    main()
