"""Sends a server hostile requests over all of its RPCs, and counts how they were answered.

    python benchmarks/hostile/fuzz.py [--inputs 200000] [--seed 0] [--frontends 0] [--out FILE]

Some inputs are messages whose fields hold odd values (empty, huge, negative, repeated, not finite, of the wrong kind),
others are good requests with an odd value somewhere, and half of them have bits of their bytes turned, and pieces cut
out, doubled or put in. Nothing may crash, hang, answer INTERNAL or UNKNOWN, or leave the server larger. Writes
fuzz.json.
"""

import argparse
import json
import math
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import psutil
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from innerloop import Client
from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1 import model_pb2, tensor_pb2
from innerloop_command.server_process import ServerProcess

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

SERVICES = (
    pb.DESCRIPTOR.services_by_name["AdaptationService"],
    model_pb2.DESCRIPTOR.services_by_name["ModelService"],
    health_pb2.DESCRIPTOR.services_by_name["Health"],
    reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
)
FAULTS = ("INTERNAL", "UNKNOWN")
"""Statuses that no input may lead to."""

CALL_SECONDS = 20.0
"""Seconds in which a call must be answered, a refusal counting as an answer."""

BATCH = 500
CLIENTS = 8
LONGEST_STREAM = 4

NUMBERS = (0, 1, 2, 5, 7, 28, 255, 10_000, 2**31 - 1, 2**32 - 1, 2**63 - 1, -1, -(2**31), -(2**63))
TEXTS = (
    "",
    "a",
    "cat",
    "x" * 2000,
    "\u0000",
    "é" * 300,
    "../../etc/passwd",
    "fe80::1",
    "\U0001f600",
    "%s%n",
    "0" * 128,
)
PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00:~\x9bU"
    b"\x00\x00\x00\nIDATx\x9cc`\x00\x00\x00\x02\x00\x01H\xaf\xa4q\x00\x00\x00\x00IEND\xaeB`\x82"
)
BYTES = (
    b"",
    b"\x00",
    PNG,
    PNG[:40],
    b"GIF89a\xff\xff\xff\xff\x00",
    b"\x00\x00\xc0\x7f" * 64,
    bytes(784),
    bytes(3920),
    b"RIFF\xff",
)


class Input(NamedTuple):
    """Content of one call: the path of its method, and the bytes of each message."""

    method: MethodDescriptor
    messages: Sequence[bytes]


class Inputs:
    """Makes inputs; the same seed makes the same.

    Args:
        seed: of all choices.
        models: names of models that the server has.
    """

    def __init__(self, seed: int, models: Sequence[str]) -> None:
        self._random = random.Random(seed)
        self._known = {"model": models}
        self._good: Mapping[str, Message] = {}
        self._forgets = False
        self._methods = [method for service in SERVICES for method in service.methods]

    def know(self, ids: Sequence[str], good: Mapping[str, Message]) -> None:
        """Take up ids of adaptations that the server has now, and good requests by the names of their methods."""
        self._known["adaptation_id"], self._good = ids, good

    def make(self) -> Input:
        """One input."""
        method = self._random.choice(self._methods)
        count = self._random.randint(0, LONGEST_STREAM) if method.client_streaming else 1
        return Input(method, [self._content(method) for _ in range(count)])

    def _content(self, method: MethodDescriptor) -> bytes:
        message = GetMessageClass(method.input_type)()
        # A server that has lost its models and adaptations would be no test.
        self._forgets = method.name in ("UnloadModel", "DeleteAdaptation")
        if method.name in self._good and self._random.random() < 0.6:
            message.CopyFrom(self._good[method.name])
            if self._random.random() < 0.6:
                self._change(message)
        else:
            self._fill(message, 0)
        content = message.SerializeToString()
        return self._mutated(content) if self._random.random() < 0.5 else content

    def _fill(self, message: Message, depth: int) -> None:
        for field in message.DESCRIPTOR.fields:
            if self._random.random() < 0.25 + 0.15 * depth:
                continue
            if field.is_repeated:
                for _ in range(self._random.choice((0, 1, 2, 4, 5, 10, 200))):
                    self._add(message, field, depth)
            elif field.message_type is not None:
                inner = getattr(message, field.name)
                inner.SetInParent()
                self._fill(inner, depth + 1)
            else:
                setattr(message, field.name, self._value(field))

    def _change(self, message: Message) -> None:
        """Give an odd value to a field somewhere in the message."""
        field, value = self._random.choice(message.ListFields())
        if field.is_repeated:
            self._add(message, field, 0)
        elif field.message_type is None:
            setattr(message, field.name, self._value(field))
        elif value.ListFields() and self._random.random() < 0.8:
            self._change(value)
        else:
            message.ClearField(field.name)

    def _add(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        values = getattr(message, field.name)
        if field.message_type is None:
            values.append(self._value(field))
        elif len(values) < 3:
            self._fill(values.add(), depth + 1)

    def _value(self, field: FieldDescriptor) -> Any:
        choose = self._random.choice
        if field.type == FieldDescriptor.TYPE_STRING:
            known = self._known.get(field.name)
            often = 0.02 if self._forgets else 0.8
            return choose(known) if known and self._random.random() < often else choose(TEXTS)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return choose(BYTES)
        if field.type == FieldDescriptor.TYPE_BOOL:
            return choose((False, True))
        if field.type == FieldDescriptor.TYPE_ENUM:
            return choose((0, 1, 2, 3, 99, -1))
        if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
            return choose((0.0, -1.0, 1e38, float("inf"), float("nan")))
        least, most = RANGES[field.cpp_type]
        return choose([number for number in NUMBERS if least <= number <= most])

    def _mutated(self, content: bytes) -> bytes:
        changed = bytearray(content)
        for _ in range(self._random.choice((1, 1, 2, 8))):
            place = self._random.randint(0, len(changed))
            match self._random.randint(0, 3):
                case 0 if place < len(changed):
                    changed[place] ^= 1 << self._random.randint(0, 7)
                case 1:
                    del changed[place : place + self._random.randint(1, 20)]
                case 2:
                    changed[place:place] = changed[place : place + self._random.randint(1, 50)]
                case _:
                    changed[place:place] = self._random.randbytes(self._random.randint(1, 10))
        return bytes(changed)


RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


class Found(NamedTuple):
    """Outcome of many inputs.

    Attributes:
        statuses: number of calls by RPC and status.
        faults: inputs that led to a fault or took too long, with the status and its text.
    """

    statuses: Counter[str]
    faults: list[str]


def send(target: str, inputs: Sequence[Input]) -> Found:
    """Send inputs, several at a time, and say how they were answered."""
    with grpc.insecure_channel(target) as channel, ThreadPoolExecutor(CLIENTS) as clients:
        answers = list(clients.map(lambda each: _answer(channel, each), inputs))
    statuses = Counter(f"{each.method.name} {status}" for each, (status, _) in zip(inputs, answers, strict=True))
    return Found(
        statuses,
        [
            f"{each.method.name} {status}: {why}; sent {b''.join(each.messages)[:200].hex()}"
            for each, (status, why) in zip(inputs, answers, strict=True)
            if status in FAULTS or (status == "DEADLINE_EXCEEDED" and each.method.name != "Watch")
        ],
    )


def _answer(channel: grpc.Channel, sent: Input) -> tuple[str, str]:
    method = sent.method
    path, watch = f"/{method.containing_service.full_name}/{method.name}", method.name == "Watch"
    kind = ("stream" if method.client_streaming else "unary") + ("_stream" if method.server_streaming else "_unary")
    call: Callable[..., Any] = getattr(channel, kind)(path)
    request = iter(sent.messages) if method.client_streaming else sent.messages[0]
    try:
        # Watches never end by themselves.
        answered = call(request, timeout=0.2 if watch else CALL_SECONDS)
        if method.server_streaming:
            for _ in answered:
                pass
    except grpc.RpcError as error:
        return error.code().name, str(error.details())
    return "OK", ""


def fuzz(
    server: ServerProcess, made: Inputs, count: int, adapt: Callable[[], tuple[str, Mapping[str, Message]]]
) -> dict[str, Any]:
    """Send `count` inputs to a server, and say what came of it.

    Args:
        server: server that is running.
        made: makes the inputs.
        count: number of inputs.
        adapt: makes an adaptation, and good requests about it; called again and again, since inputs delete and unload.

    Returns:
        "inputs", "statuses", "faults", and "resident_bytes" of the server's processes after each tenth of the inputs.
    """
    statuses, faults, resident = Counter[str](), list[str](), [_resident(server)]
    sent = 0
    while sent < count:
        adaptation_id, good = adapt()
        made.know([adaptation_id], good)
        found = send(server.target, [made.make() for _ in range(min(BATCH, count - sent))])
        statuses += found.statuses
        faults += found.faults
        before, sent = sent, sent + sum(found.statuses.values())
        if before * 10 // count != sent * 10 // count:
            resident.append(_resident(server))
        if server.process.poll() is not None:
            faults.append(f"the server ended with code {server.process.returncode}")
            break
    return {"inputs": sent, "statuses": dict(sorted(statuses.items())), "faults": faults, "resident_bytes": resident}


def adapting(client: Client, model: str, shape: tuple[int, ...]) -> tuple[str, Mapping[str, Message]]:
    """Have a model of images [*shape] that inputs may have unloaded adapt; its id, and good requests about it."""
    client.load_model(model)
    adaptation = client.adapt(model, np.zeros((5, *shape), np.uint8), list("abcde"))
    return adaptation.id, good_requests(model, adaptation.id, shape)


def good_requests(model: str, adaptation_id: str, shape: tuple[int, ...]) -> dict[str, Message]:
    """Requests of five examples that a model of uint8 inputs [*shape] answers, by the names of their methods."""
    size = math.prod(shape)
    tensor = tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_UINT8, shape=[5, *shape], data=bytes(5 * size))
    inputs = tensor_pb2.Inputs(tensor=tensor)
    pictures = tensor_pb2.Inputs(images=tensor_pb2.EncodedImages(files=[PNG] * 5))
    support = pb.Support(inputs=inputs, labels=pb.Labels(values=list("abcde")))
    relabel = pb.Relabelling(example_ids=[1], labels=pb.Labels(values=["a"]))
    return {
        "Adapt": pb.AdaptRequest(
            model=model, support=support, options=pb.AdaptOptions(time_to_live=Duration(seconds=1000))
        ),
        "AdaptPredict": pb.AdaptPredictRequest(model=model, support=support, query=pictures, keep=True),
        "Predict": pb.PredictRequest(adaptation_id=adaptation_id, query=pictures, return_logits=True),
        "UpdateAdaptation": pb.UpdateAdaptationRequest(adaptation_id=adaptation_id, add=support, relabel=relabel),
        "ListExamples": pb.ListExamplesRequest(adaptation_id=adaptation_id),
        "DownloadAdaptation": pb.DownloadAdaptationRequest(adaptation_id=adaptation_id),
        "StreamPredict": pb.StreamPredictRequest(sequence=1, adaptation_id=adaptation_id, query=inputs),
    }


def _resident(server: ServerProcess) -> int:
    process = psutil.Process(server.process.pid)
    return sum(each.memory_info().rss for each in [process, *process.children()])


def main() -> None:
    """Fuzz a server of untrained models and write fuzz.json."""
    from machine import describe_machine
    from untrained import write_bundles

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frontends", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("fuzz.json"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        models = write_bundles(Path(folder) / "models")
        names = sorted(each.name for each in models.iterdir())
        settings = {"admin": True, "downloads": True, "frontends": given.frontends, "store": f"sqlite:{folder}/store"}
        with ServerProcess(models, device="cpu", **settings) as server:
            with Client(server.target) as client:
                started = time.monotonic()
                made = Inputs(given.seed, names)
                found = fuzz(server, made, given.inputs, lambda: adapting(client, names[0], (1, 28, 28)))
            tracebacks = server.log.count("Traceback")
        seconds = round(time.monotonic() - started)
    content = {"machine": describe_machine(), "seed": given.seed, "frontends": given.frontends, "seconds": seconds}
    content |= {"tracebacks_in_log": tracebacks, "exit_code": server.process.returncode, **found}
    given.out.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(content, indent=2))


if __name__ == "__main__":
    main()
