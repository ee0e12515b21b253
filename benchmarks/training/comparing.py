"""Compares what sides took, and tells it as tables."""

import math
from statistics import mean
from typing import Any

from intervals import half_width
from sides import OURS, SideSpec


def fastest_ways(sides: list[SideSpec], figures: dict[str, Any]) -> list[SideSpec]:
    """The sides that go on: of a peer's several ways only the fastest, and none that failed.

    Ways of one peer share the part of their names before a comma. Sides that don't count stay.
    """
    alive = [side for side in sides if "failed" not in figures[side.name]]
    best: dict[str, SideSpec] = {}
    for side in alive:
        peer = side.name.partition(",")[0]
        if not side.ours and side.counts and (peer not in best or _rate(figures, side) > _rate(figures, best[peer])):
            best[peer] = side
    return [side for side in alive if side.ours or not side.counts or side in best.values()]


def compare(figures: dict[str, Any]) -> dict[str, Any]:
    """The best peer, our best way, and how many times as many tasks a second that is, with intervals over rounds.

    `times` is by the clock, `cpu_times` by the time that all processors took. Empty where one of the two is missing.
    """
    rates = {name: own["tasks_per_second"] for name, own in figures.items() if own["counts"] and "failed" not in own}
    ours = [name for name in rates if name.startswith(OURS)]
    peers = [name for name in rates if name not in ours]
    if not (ours and peers):
        return {}
    best, ours_best = (max(names, key=lambda name: rates[name]) for names in (peers, ours))
    return {
        "ours": ours_best,
        "best_peer": best,
        "times": ratio(figures, best, ours_best, "seconds"),
        "cpu_times": ratio(figures, best, ours_best, "cpu_seconds"),
        "times_each": {peer: ratio(figures, peer, ours_best, "seconds")["times"] for peer in peers},
    }


def ratio(figures: dict[str, Any], peer: str, ours: str, what: str) -> dict[str, Any]:
    """Geometric mean over rounds of the peer's time by ours, and its interval of confidence."""
    pairs = zip(figures[peer]["turns"], figures[ours]["turns"], strict=True)
    logs = [math.log(theirs[what] / own[what]) for theirs, own in pairs if theirs and own]
    middle, interval = math.exp(mean(logs)), None
    if len(logs) > 1:
        half = half_width(logs)
        interval = [middle * math.exp(-half), middle * math.exp(half)]
    return {"times": middle, "interval": interval}


def markdown(results: dict[str, Any]) -> str:
    """Tables of tasks a second, seconds to the first step and memory, of the ratios, and of the race."""
    workloads = results["workloads"]
    names = list(dict.fromkeys(name for one in workloads.values() for name in one["sides"]))
    rows = [["side", *workloads], ["---"] * (1 + len(workloads))]
    rows += [[name, *(cell(one["sides"].get(name)) for one in workloads.values())] for name in names]
    rows.append(["Innerloop / best peer", *(ratio_cell(one["comparison"]) for one in workloads.values())])
    races = [one["race"] for one in workloads.values() if "race" in one]
    lines = [
        f"to {race['target']:.0%}: {race_cell(name, own)}" for race in races for name, own in race["sides"].items()
    ]
    return "\n".join(["| " + " | ".join(row) + " |" for row in rows] + lines)


def cell(figures: dict[str, Any] | None) -> str:
    """Tasks a second, most memory and time to the first step of one side on one workload."""
    if figures is None:
        return ""
    if "failed" in figures:
        return "failed"
    memory, first = figures["peak_bytes"] / 1e9, figures["first_step_seconds"]
    return f"{figures['tasks_per_second']:.2f}/s, {memory:.1f} GB, {first:.1f} s"


def ratio_cell(comparison: dict[str, Any]) -> str:
    """How many times as fast as the best peer, with the interval, and which peer that is."""
    if not comparison:
        return ""
    times, cpu = comparison["times"], comparison["cpu_times"]["times"]
    interval = "" if times["interval"] is None else " ({:.2f} to {:.2f})".format(*times["interval"])
    return f"{times['times']:.2f}{interval}, {cpu:.2f} by processor time; {comparison['best_peer']}"


def race_cell(name: str, state: dict[str, Any]) -> str:
    """When a side reached the target, or how far it came."""
    if state["seconds_to_target"] is None:
        return f"{name} only {state['accuracy']:.0%} after {state['steps']} steps"
    return f"{name} {state['seconds_to_target']:.0f} s, {state['steps']} steps"


def _rate(figures: dict[str, Any], side: SideSpec) -> float:
    rate: float = figures[side.name]["tasks_per_second"]
    return rate
