"""Metrics of several processes, added up.

Front ends write their metrics through prometheus_client's multiprocess mode, into memory-mapped files that outlive the
processes. A front end that replaces another one continues its file, so that counters never go back.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, values
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample


def write_metrics_to(folder: Path, slot: int) -> None:
    """Make this process keep the metrics that it creates from now on in files named after `slot`."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]


class MergedCollector(Collector):
    """Adds up this process's metrics and those that other processes write to files.

    Args:
        own: registry of this process's metrics, which are counters and histograms only.
        folder: folder of the files.
    """

    def __init__(self, own: CollectorRegistry, folder: Path) -> None:
        self._own = own
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """Give the sums, each metric once and each of its series once."""
        # A file that was just created is empty for a moment.
        files = [str(file) for file in self._folder.glob("*.db") if file.stat().st_size]
        written = {family.name: family for family in MultiProcessCollector.merge(files)}  # type: ignore[no-untyped-call]
        for family in self._own.collect():
            if family.name in written:
                family.samples = _sum([*family.samples, *written[family.name].samples])
            yield family


def _sum(samples: Iterable[Sample]) -> list[Sample]:
    totals: dict[tuple[str, frozenset[tuple[str, str]]], Sample] = {}
    for sample in samples:
        key = sample.name, frozenset(sample.labels.items())
        before = totals.get(key)
        totals[key] = sample if before is None else sample._replace(value=before.value + sample.value)
    return list(totals.values())
