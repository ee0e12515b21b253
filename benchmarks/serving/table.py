"""Tables of the figures: Innerloop against the best peer at each number of clients, and a table of everything."""

from typing import Any

OURS = "Innerloop"
OPERATIONS = {"AdaptPredict": "", "Predict": ": Predict"}
"""Mark of the row of each operation of ours in the table."""

RATIOS = {"times_best_peer": "Innerloop / best peer", "predict_times_adapt_predict": "Predict / AdaptPredict"}
"""Rows of the table by what `compare` calls them."""


def compare(servers: dict[str, Any]) -> dict[str, Any]:
    """By number of clients: the fastest peer, how many times faster we are, and Predict against AdaptPredict."""
    comparison: dict[str, Any] = {}
    for clients, point in _points(servers, OURS, "AdaptPredict").items():
        comparison[clients] = {}
        rates = {
            name: _points(servers, name, "AdaptPredict")[clients]["per_second"]
            for name in servers
            if name != OURS and clients in _points(servers, name, "AdaptPredict")
        }
        if rates:
            best = max(rates, key=lambda name: rates[name])
            comparison[clients] |= {"best_peer": best, "times_best_peer": point["per_second"] / rates[best]}
        predict = _points(servers, OURS, "Predict").get(clients)
        if predict:
            comparison[clients]["predict_times_adapt_predict"] = predict["per_second"] / point["per_second"]
    return comparison


def markdown(servers: dict[str, Any], clients: tuple[int, ...]) -> str:
    """Answers per second, median and 99th percentile of latency of every server, and how we compare."""
    head = ["server", *(f"{count} client{'s' if count > 1 else ''}" for count in clients)]
    rows = [head, ["---"] * len(head)]
    for name, server in servers.items():
        for operation, mark in OPERATIONS.items():
            points = _points(servers, name, operation)
            if points:
                rows.append([name + mark, *(_cell(points.get(str(count))) for count in clients)])
        if "failed" in server:
            rows.append([name, "failed: " + server["failed"].splitlines()[-1], *[""] * (len(clients) - 1)])
    comparison = compare(servers)
    for key, title in RATIOS.items():
        cells = [comparison.get(str(count), {}).get(key) for count in clients]
        if any(cells):
            rows.append([title, *("" if cell is None else f"{cell:.2f}" for cell in cells)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _points(servers: dict[str, Any], name: str, operation: str) -> dict[str, Any]:
    """Figures by number of clients; empty where there are none."""
    points: dict[str, Any] = servers.get(name, {}).get(operation, {}).get("clients", {})
    return points


def _cell(point: dict[str, Any] | None) -> str:
    if point is None:
        return ""
    errors = f", {point['errors']} errors" if point["errors"] else ""
    return f"{point['per_second']:.1f}/s, {point['p50_ms']:.1f} / {point['p99_ms']:.1f} ms{errors}"
