"""The README quotes what the benchmarks measured."""

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = " ".join((ROOT / "README.md").read_text().split())


def results(benchmark: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "benchmarks" / benchmark / "results.json").read_text())["results"]
    return content


@pytest.mark.parametrize("method", results("omniglot"))
def test_accuracies_are_those_measured(method: str) -> None:
    result = results("omniglot")[method]
    row = (
        f"| `{method}` | {result['accuracy']:.2%} ± {result['confidence_interval']:.2%} "
        f"| {result['served_accuracy']:.2%} | {result['train_minutes']:.0f} min |"
    )
    assert row in README


def test_latencies_are_those_measured() -> None:
    for model, measured in results("overhead").items():
        plain, kept = measured["plain"], measured["freed_memory_kept"]
        row = (
            f"| `{model}` | {plain['in_process_p50_ms']:.1f} ms | {kept['in_process_p50_ms']:.1f} ms "
            f"| {kept['served_p50_ms']:.1f} ms | {kept['one_round_trip_p50_ms']:.1f} ms |"
        )
        assert row in README


def test_the_isolation_of_concurrent_calls_is_that_measured() -> None:
    measured = results("isolation")
    assert measured["equal"] == measured["calls"] == 200
    assert f"(largest difference of a probability: {measured['largest_difference']:.0e})" in README
