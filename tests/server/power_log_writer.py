"""Writes to a store while everything that it does to its files is noted; run by test_power_loss.py.

What the store acknowledges is written to the file `answers` of the same folder, so that the log has it in its place.
"""

import asyncio
import os
import random
import sys
from pathlib import Path

from innerloop_server.adaptations.stores.interface import StoredAdaptation, Summary
from innerloop_server.adaptations.stores.sqlite import SqliteStore

CLIENTS, CHANGES = 4, 16


def adaptation(name, revision=1):
    """A revision of the adaptation of that name, always the same."""
    created_ns, chance = random.Random(name).randrange(10**18), random.Random(f"{name} {revision}")
    summary = Summary(name, "me", "model", revision, created_ns, 2**62, "", chance.randbytes(100))
    return StoredAdaptation(summary, chance.randbytes(chance.choice([100, 50_000, 200_000])), chance.randbytes(1000))


async def change(store, client, answers):
    for number in range(CHANGES):
        name = f"{client}-{number}"
        await store.add(adaptation(name))
        os.write(answers, f"added {name}\n".encode())
        if number % 3 == 0:
            os.write(answers, f"replacing {name}\n".encode())
            await store.replace(adaptation(name, 2))
            os.write(answers, f"replaced {name}\n".encode())
        if number % 3 == 2:
            gone = f"{client}-{number - 1}"
            os.write(answers, f"deleting {gone}\n".encode())
            await store.delete(gone)
            os.write(answers, f"deleted {gone}\n".encode())


async def main(folder, synchronous):
    answers = os.open(folder / "answers", os.O_WRONLY | os.O_CREAT)
    store = SqliteStore(folder / "store", synchronous=synchronous)
    await store.open()
    await asyncio.gather(*(change(store, client, answers) for client in range(CLIENTS)))
    os._exit(0)  # without closing, which would write everything that a crash leaves out


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2] == "through"))
