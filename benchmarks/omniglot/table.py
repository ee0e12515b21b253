"""The results as a Markdown table."""

from collections.abc import Iterable, Mapping
from typing import Any

SETTINGS = ("5w1s", "5w5s", "20w1s", "20w5s")


def markdown(results: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    """One row for each method and protocol, the papers' figures beside ours.

    Args:
        results: by method, as run.py writes them.
        machine: they were measured on.
    """
    device = machine["gpu"] or f"one thread of a {machine['cores']}-core {machine['cpu']} for each run"
    lines = [
        "# Omniglot: every method",
        "",
        "Accuracy in percent, 95% confidence interval over 600 episodes of unseen characters (random split, seed 0);",
        "in brackets what the paper reports, on its own splits and mostly after many times the training. Strided",
        f"Conv4-64, trained on tasks of one shot with {device}; PyTorch",
        f"{machine['torch']}, Python {machine['python']}. A second training time belongs to a run of its own for",
        "20 ways, a third and fourth to runs of five shots for 5 and 20 ways; with a star, a run went on from another.",
        "Served: 5w1s over the same episodes as uint8 images through a running server and the SDK.",
        "Transductive rows let the queries of a task normalise each other, as those papers do; a server never does.",
        *([] if machine["gpu"] else ["Not measured on GPU."]),
        "",
        "| method | protocol | 5w1s | 5w5s | 20w1s | 20w5s | served | training |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method, result in results.items():
        for protocol, paper in result["paper"].items():
            cells = [
                _cell(result["settings"].get(setting, {}).get(protocol), reported)
                for setting, reported in zip(SETTINGS, paper, strict=True)
            ]
            inductive = protocol == "inductive"
            served = f"{result['served']:.2%}" if inductive and "served" in result else ""
            minutes = _minutes(result["runs"].values()) if inductive else ""
            lines.append(f"| {' | '.join([f'`{method}`', protocol, *cells, served, minutes])} |")
    return "\n".join(lines) + "\n"


def _minutes(runs: Iterable[Mapping[str, Any]]) -> str:
    return " + ".join(f"{run['minutes']:.0f}{'*' if run['starts_from'] else ''}" for run in runs) + " min"


def _cell(measured: Mapping[str, float] | None, reported: float | None) -> str:
    ours = f"{measured['accuracy']:.2%} ± {measured['confidence_interval']:.2%}" if measured else "-"
    return ours.replace("%", "") + (f" ({reported})" if reported is not None else "")
