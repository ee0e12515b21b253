"""What packing a folder like ImageNet takes, and what drawing from the pack does.

    python benchmarks/data/run.py [--classes 100] [--images 200] [--work FOLDER] [--only reading|packing|many]

Makes photographs (photos.py), packs them at 84 x 84 pixels with `innerloop data pack`, and draws 1,000 episodes of 5
ways, 5 shots and 15 queries from the pack, each part in a process of its own whose memory is sampled meanwhile: its own
(anonymous) memory, and pages of files that are mapped into it, which the system takes back when it needs them, both
less what there is after importing. Episodes are also drawn after the pack was dropped from the system's cache. Times
`images:` on a folder and on a zip of 60,000 PNGs of 28 x 28 pixels, too, without cache and with. Seconds of computing
are those of the processor in one process, which other programs on the machine change less than time.

With --only many, and only then, it packs as many files as ImageNet has, 1,000 classes of 1,281: photographs of 32 to 48
pixels a side, packed at 32 x 32, so that the folder fits on an ordinary disk (--work FOLDER names one with 20 GB free)
and the time tells what a file costs besides decoding it.

All files that it makes are removed. Writes results.json.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from innerloop_trainer.data import EpisodeShape, load_source, pack

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine
from photos import make_photos

RESULTS = Path(__file__).with_name("results.json")
SHAPE = EpisodeShape(ways=5, shots=5, queries=15)
EPISODES, AT_ONCE = 1000, 5
PIXELS = 84
"""Pixels of the side of an image in the ordinary pack."""

SMALL_CLASSES, SMALL_IMAGES, SMALL_PIXELS = 10, 6000, 28

MANY_CLASSES, MANY_IMAGES = 1000, 1281
"""Class folders, and files in each of them, that make as many files as ImageNet has training images."""

MANY_SIDES, MANY_PIXELS = (32, 48), 32
"""Least and most pixels of a side of these photographs, and of the side of their images in the pack."""

MANY_COPIES = 61
"""Files that each of these pictures is written as, since making a picture takes longer than packing it."""

MANY_DISK = 20e9
"""Bytes that these files and their pack take on a disk, where each file takes a block of 4 kB at least."""

MEGABYTE = 1e6


def main() -> None:
    """Read the arguments, measure and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--work", type=Path, help="folder for 3 GB of temporary files, 20 GB for many")
    parser.add_argument("--only", choices=["reading", "packing", "many"])
    parser.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        name, path, pixels = arguments.part
        print(json.dumps(PARTS[name](Path(path), int(pixels))))
        return
    known = json.loads(RESULTS.read_text())["results"] if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        work = Path(folder)
        if arguments.only in (None, "reading"):
            known["reading"] = reading(work)
            write(known)
        if arguments.only in (None, "packing"):
            size = make_photos(work / "photos", classes=arguments.classes, images=arguments.images, seed=0)
            known["packing"] = packing(work, arguments.classes, arguments.images, size, PIXELS)
            write(known)
        if arguments.only == "many":
            known["many"] = many(work)
            write(known)


def write(results: dict[str, Any]) -> None:
    """Write what was measured so far, so that it stays if what follows fails."""
    RESULTS.write_text(json.dumps({"machine": describe_machine(), "results": results}, indent=1) + "\n")


def packing(work: Path, classes: int, images: int, size: int, pixels: int) -> dict[str, Any]:
    """Pack the photographs, whose files have `size` bytes together, at so many pixels, and draw from the pack."""
    return {
        "classes": classes,
        "images": classes * images,
        "photos_mb": size / MEGABYTE,
        "packed": in_process("pack", work, pixels),
        "drawn": in_process("draw", work, pixels),
        "drawn_from_disk": in_process("draw_from_disk", work, pixels),
    }


def many(work: Path) -> dict[str, Any]:
    """Make as many photographs as ImageNet has, pack them and draw from the pack."""
    free = shutil.disk_usage(work).free
    if free < MANY_DISK:
        raise SystemExit(
            f"{work} has {free / 1e9:.0f} GB free and many files take {MANY_DISK / 1e9:.0f} GB; name another folder "
            "with --work"
        )
    size = make_photos(
        work / "photos", classes=MANY_CLASSES, images=MANY_IMAGES, seed=0, sides=MANY_SIDES, copies=MANY_COPIES
    )
    return packing(work, MANY_CLASSES, MANY_IMAGES, size, MANY_PIXELS)


def reading(work: Path) -> dict[str, Any]:
    """Read 60,000 small images from a folder and from a zip, without cache and with."""
    make_small_images(work)
    results = {}
    for source in ("small", "small.zip"):
        runs = [in_process("read", work / source, SMALL_PIXELS) for _ in range(2)]
        results[source] = dict(zip(("first", "second"), runs, strict=True))
    shutil.rmtree(work / "small")
    return {"images": SMALL_CLASSES * SMALL_IMAGES, **results}


def make_small_images(work: Path) -> None:
    """Strokes on black in class folders, like handwritten digits, and the same in a zip."""
    with zipfile.ZipFile(work / "small.zip", "w") as archive:
        shape = (SMALL_PIXELS, SMALL_PIXELS)
        for number in range(SMALL_CLASSES):
            random = np.random.default_rng(number)
            (work / "small" / str(number)).mkdir(parents=True)
            common = random.random(shape)
            for index in range(SMALL_IMAGES):
                inked = common + 0.3 * random.standard_normal(shape) > 0.75
                buffer = io.BytesIO()
                Image.fromarray((inked * random.integers(128, 255, shape)).astype(np.uint8)).save(buffer, "PNG")
                name = f"{number}/{index:05}.png"
                (work / "small" / name).write_bytes(buffer.getvalue())
                archive.writestr(name, buffer.getvalue())


def in_process(part: str, path: Path, pixels: int) -> dict[str, float]:
    """Run a part on images of so many pixels a side in a process of its own, so that its memory is its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--part", part, str(path), str(pixels)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(path.parent / "cache")}
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    measured: dict[str, float] = json.loads(found.stdout.splitlines()[-1])
    print(part, path.name, measured)
    return measured


def part_pack(work: Path, pixels: int) -> dict[str, float]:
    """Pack the photographs."""
    with Memory() as memory:
        start, computed = time.perf_counter(), time.process_time()
        packed = pack(f"images:{work / 'photos'}?size={pixels}&color=rgb", work / "shards")
        seconds, computed = time.perf_counter() - start, time.process_time() - computed
    return {
        "pack_mb": packed.bytes / MEGABYTE,
        "seconds": seconds,
        "images_per_second": packed.examples / seconds,
        "images_per_second_of_computing": packed.examples / computed,
        **memory.most,
    }


def part_draw(work: Path, pixels: int) -> dict[str, float]:
    """Draw episodes from a pack that the system's cache may hold."""
    with Memory() as memory:
        split = load_source(f"packed:{work / 'shards'}").train
        generator = torch.Generator().manual_seed(0)
        start, computed = time.perf_counter(), time.process_time()
        for _ in range(EPISODES // AT_ONCE):
            split.sample(SHAPE, AT_ONCE, generator)
        seconds, computed = time.perf_counter() - start, time.process_time() - computed
    drawn = EPISODES * SHAPE.ways * (SHAPE.shots + SHAPE.queries)
    return {
        "episodes_per_second": EPISODES / seconds,
        "episodes_per_second_of_computing": EPISODES / computed,
        "drawn_mb": drawn * 3 * pixels**2 / MEGABYTE,
        **memory.most,
    }


def part_draw_from_disk(work: Path, pixels: int) -> dict[str, float]:
    """Draw episodes from a pack that the system's cache has dropped."""
    for file in (work / "shards").glob("*.npy"):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())  # pages that are not on the disk yet are not dropped
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return part_draw(work, pixels)


def part_read(path: Path, pixels: int) -> dict[str, float]:
    """Load a source of images."""
    start, computed = time.perf_counter(), time.process_time()
    load_source(f"images:{path}?size={pixels}")
    return {"seconds": time.perf_counter() - start, "seconds_of_computing": time.process_time() - computed}


class Memory:
    """Samples the resident memory of this process; `most` is the largest growth of each kind in MB."""

    def __enter__(self) -> "Memory":
        self._before, self._done = resident(), threading.Event()
        self.most = dict.fromkeys(self._before, 0.0)
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(0.02):
            for kind, now in resident().items():
                self.most[kind] = max(self.most[kind], now - self._before[kind])


def resident() -> dict[str, float]:
    """Resident memory of this process in MB: its own, and pages of mapped files."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    fields = {"memory_mb": "RssAnon", "mapped_mb": "RssFile"}
    return {kind: int(status[field].split()[0]) * 1024 / MEGABYTE for kind, field in fields.items()}


PARTS: dict[str, Callable[[Path, int], dict[str, float]]] = {
    "pack": part_pack,
    "draw": part_draw,
    "draw_from_disk": part_draw_from_disk,
    "read": part_read,
}

if __name__ == "__main__":
    main()
