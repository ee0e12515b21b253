"""Work and usage of a server while it was measured: from its metrics, and from its processes if they run here."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from time import perf_counter
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

import psutil
from prometheus_client.parser import text_string_to_metric_families

from innerloop.errors import InnerloopError, InvalidArgumentError

OPERATIONS = ("adapt", "predict")
MAIN_CPU = "process_cpu_seconds_total"
DEVICE_BUSY = "innerloop_device_busy_seconds_total"
ENCODER = "innerloop_encoder_duration_seconds_sum"
SCRAPE_SECONDS = 10.0


@dataclass(frozen=True)
class ServerUsage:
    """Work and usage of the server while it was measured. Figures that could not be found out are None or empty.

    Attributes:
        cpu_cores: CPU seconds per second of all its processes, if they were watched.
        main_cpu_cores: the same of the process that the metrics come from; others may answer and compute for it.
        batches_at_once: estimate of how many batches of this model were being prepared or computed at a time, on
            average. The server reports the time of a batch once for each of its requests, so the estimate is exact for
            batches of one size, and somewhat too high for batches of mixed sizes.
        device_busy: share of the time in which a batch of any model was being prepared or computed.
        batch_size: mean number of requests computed together, by operation.
        device_memory_bytes: at the end, by device and kind, as in "cuda:0 allocated".
        adaptations_held: of this model, at the end.
        adaptations_bytes: memory that these take.
        adaptations_evicted: of this model, dropped meanwhile to make room.
        unseen: why the metrics could not be read, if they should have been.
    """

    cpu_cores: float | None = None
    main_cpu_cores: float | None = None
    batches_at_once: float | None = None
    device_busy: float | None = None
    batch_size: Mapping[str, float] = field(default_factory=dict)
    device_memory_bytes: Mapping[str, int] = field(default_factory=dict)
    adaptations_held: int | None = None
    adaptations_bytes: int | None = None
    adaptations_evicted: int | None = None
    unseen: str = ""


Labels = frozenset[tuple[str, str]]


class Scrape:
    """The server's metrics at one moment."""

    def __init__(self, url: str) -> None:
        """Read them.

        Raises:
            InnerloopError: they can't be read.
        """
        if urlsplit(url).scheme not in ("http", "https"):
            raise InvalidArgumentError(f"metrics: {url!r} is no http or https URL")
        try:
            with urlopen(url, timeout=SCRAPE_SECONDS) as response:  # noqa: S310 - checked above
                families = list(text_string_to_metric_families(response.read().decode()))
        except (URLError, HTTPException, OSError, ValueError) as error:
            raise InnerloopError(f"metrics: can't read {url}: {error}") from error
        self._values: dict[tuple[str, Labels], float] = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """Sum of all samples of a name that have these labels, and maybe others."""
        wanted = frozenset(labels.items())
        return sum(value for (found, has), value in self._values.items() if found == name and wanted <= has)

    def by_labels(self, name: str) -> dict[Labels, float]:
        """All samples of a name."""
        return {labels: value for (found, labels), value in self._values.items() if found == name}


class Watch:
    """Looks at a server twice, and tells what happened in between.

    Args:
        model: that is measured.
        metrics_url: where the server's metrics are, if they are to be read.
        pid: of the server's process on this machine, if it is to be watched.
    """

    def __init__(self, model: str, metrics_url: str | None, pid: int | None) -> None:
        self._model = model
        self._url = metrics_url
        self._pid = pid

    def look(self) -> "Look":
        """Look now.

        Raises:
            InnerloopError: there is nothing to see.
        """
        cpu = None if self._pid is None else _cpu_seconds(self._pid)
        return Look(perf_counter(), cpu, None if self._url is None else Scrape(self._url))

    def between(self, before: "Look", after: "Look") -> ServerUsage:
        """Work of the server between two readings."""
        seconds = after.at - before.at
        cpu = None
        if before.cpu_seconds is not None and after.cpu_seconds is not None:
            cpu = (after.cpu_seconds - before.cpu_seconds) / seconds
        if before.scrape is None or after.scrape is None:
            return ServerUsage(cpu_cores=cpu)
        return self._described(before.scrape, after.scrape, seconds, cpu)

    def _described(self, before: Scrape, after: Scrape, seconds: float, cpu: float | None) -> ServerUsage:
        def gained(name: str, **labels: str) -> float:
            labels = {"model": self._model, **labels}
            return after.value(name, **labels) - before.value(name, **labels)

        batch_size, busy = {}, gained(ENCODER)
        for operation in OPERATIONS:
            batches = gained("innerloop_batch_size_count", operation=operation)
            if batches > 0:
                batch_size[operation] = gained("innerloop_batch_size_sum", operation=operation) / batches
                busy += gained("innerloop_phase_duration_seconds_sum", phase=operation) / batch_size[operation]
        return ServerUsage(
            cpu_cores=cpu,
            main_cpu_cores=(after.value(MAIN_CPU) - before.value(MAIN_CPU)) / seconds,
            batches_at_once=busy / seconds,
            device_busy=(after.value(DEVICE_BUSY) - before.value(DEVICE_BUSY)) / seconds,
            batch_size=batch_size,
            device_memory_bytes={
                " ".join(value for _, value in sorted(labels)): int(size)
                for labels, size in after.by_labels("innerloop_device_memory_bytes").items()
            },
            adaptations_held=int(after.value("innerloop_adaptations_held", model=self._model)),
            adaptations_bytes=int(after.value("innerloop_adaptations_bytes", model=self._model)),
            adaptations_evicted=int(gained("innerloop_adaptations_evicted_total")),
        )


@dataclass(frozen=True)
class Look:
    """Readings of one moment.

    Attributes:
        at: when, in seconds.
        cpu_seconds: that the server's processes have used so far.
        scrape: the server's metrics.
    """

    at: float
    cpu_seconds: float | None
    scrape: Scrape | None


def _cpu_seconds(pid: int) -> float:
    """CPU time so far of a process and its children.

    Raises:
        InnerloopError: there is no such process, or it belongs to somebody else.
    """
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        used = 0.0
        for member in family:
            # A child may end between being listed and being looked at.
            with suppress(psutil.NoSuchProcess):
                times = member.cpu_times()
                used += times.user + times.system
    except psutil.Error as error:
        raise InnerloopError(f"server_pid: process {pid} can't be watched: {error}") from error
    return used
