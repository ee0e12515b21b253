"""What a PromQL expression of a dashboard selects: enough of the language to compare it with a server's metrics."""

import re
from dataclasses import dataclass, field

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\[[^\]]*\]|[A-Za-z_:][\w:]*|[!=]~|!=|[^\s\w]|[\d.]+')
GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}
KEYWORDS = {"and", "or", "unless", "bool", "offset"}
ADDED_BY_PROMETHEUS = {"job", "instance"}

Series = dict[str, dict[str, set[str]]]
"""Values by metric and label, as scraped."""


@dataclass
class Matcher:
    label: str
    operator: str
    value: str


@dataclass
class Query:
    """An expression taken apart.

    Attributes:
        selectors: metrics and what their labels must match.
        grouping: labels that results are told apart by.
    """

    selectors: list[tuple[str, list[Matcher]]] = field(default_factory=list)
    grouping: set[str] = field(default_factory=set)


def parse(expression: str) -> Query:
    query = Query()
    tokens = [*TOKEN.findall(expression), ""]
    while tokens[0]:
        token = tokens.pop(0)
        if token in GROUPING:
            query.grouping |= set(re.findall(r"\w+", "".join(_until(tokens, ")"))))
        elif re.match(r"[A-Za-z_:]", token) and token not in KEYWORDS and tokens[0] not in {"(", *GROUPING}:
            matchers = "".join(_until(tokens, "}")) if tokens[0] == "{" else ""
            found = re.findall(r'(\w+)(=~|!~|!=|=)"((?:[^"\\]|\\.)*)"', matchers)
            query.selectors.append((token, [Matcher(*match) for match in found]))
    return query


def problems(expression: str, series: Series) -> list[str]:
    """What an expression asks for that a server with these series does not have."""
    query = parse(expression)
    found = [] if query.selectors else ["selects nothing"]
    for metric, matchers in query.selectors:
        if metric not in series:
            found.append(f"no metric {metric}")
            continue
        for matcher in matchers:
            if matcher.label in ADDED_BY_PROMETHEUS:
                continue
            if matcher.label not in series[metric]:
                found.append(f"{metric} has no label {matcher.label}")
            elif matcher.operator in {"=", "!="} and matcher.value not in series[metric][matcher.label]:
                found.append(f"{metric} never has {matcher.label}={matcher.value}")
    known = labels(query, series) | ADDED_BY_PROMETHEUS
    return found + [f"no label {label} to group by" for label in sorted(query.grouping - known)]


def labels(query: Query, series: Series) -> set[str]:
    """Labels of all metrics that a query selects."""
    return {label for metric, _ in query.selectors for label in series.get(metric, ())}


def _until(tokens: list[str], end: str) -> list[str]:
    taken = []
    while tokens[0] != end:
        taken.append(tokens.pop(0))
    return taken
