"""The results as a table in Markdown."""

from collections.abc import Mapping
from typing import Any

from innerloop_learner.manifest import ADAPT, PREDICT

FILES = {"adapt": ADAPT, "predict": PREDICT}


def markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Milliseconds by engine, their ratio with the least and the largest of a round, and size of each graph."""
    measured = [result for result in results.values() if "refused" not in result]
    engines = list(measured[0]["adapt"]["milliseconds"]) if measured else []
    head = ["method"]
    for operation in FILES:
        head += [*(f"{operation}, {engine}" for engine in engines), "times as fast"]
    head += list(FILES.values())
    rows = [head, ["---"] * len(head)]
    for method, result in results.items():
        cells = [f"not exported: {result['refused']}"] if "refused" in result else _cells(result)
        rows.append([f"`{method}`", *cells, *[""] * (len(head) - 1 - len(cells))])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cells(result: Mapping[str, Any]) -> list[str]:
    cells = []
    for operation in FILES:
        times = result[operation]
        least, largest = times["spread"]
        cells += [f"{milliseconds:.2f} ms" for milliseconds in times["milliseconds"].values()]
        cells.append(f"{times['ratio']:.2f} ({least:.2f} to {largest:.2f})")
    return cells + [f"{result['bytes'][file] / 1e3:.0f} kB, {result['nodes'][file]} nodes" for file in FILES.values()]
