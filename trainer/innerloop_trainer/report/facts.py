"""What a model is, in rows of a name and a text."""

import json
from collections.abc import Mapping
from typing import Any

from innerloop_learner.bundle import Bundle


def facts(bundle: Bundle) -> list[tuple[str, str]]:
    """The facts of a bundle's manifest that people ask for; what does not apply is left out."""
    manifest = bundle.manifest
    learner, limits, provenance, encoder = manifest.learner, manifest.limits, manifest.provenance, manifest.encoder
    sizes = [(limits.trained_ways, "ways"), (limits.trained_shots, "shots"), (limits.trained_steps, "inner steps")]
    most = [(limits.max_ways, "ways"), (limits.max_steps, "inner steps")]
    calibration = manifest.calibration
    rows = [
        ("Name", manifest.name),
        ("Version", manifest.digest),
        ("Method", f"{learner.method} {_listed(learner.settings)}"),
        ("Backbone", f"{learner.backbone} {_listed(learner.backbone_settings)}"),
        ("Parameters", f"{sum(value.numel() for value in bundle.params.values()):,}"),
        ("Input", f"{learner.input.dtype} {' x '.join(map(str, learner.input.shape))}"),
        ("Encoder", "" if encoder is None else _encoder(encoder.origin)),
        ("Trained for", ", ".join(f"{size} {word}" for size, word in sizes if size and provenance.meta_trained)),
        ("Takes at most", ", ".join(f"{size} {word}" for size, word in most if size)),
        ("Training data", provenance.data),
        ("Options of the data", _listed(provenance.options)),
        ("Outer steps", f"{provenance.iterations:,}" if provenance.meta_trained else "none: nothing was meta-trained"),
        ("Seed", str(provenance.seed)),
        ("Configuration", _listed({key: each for key, each in provenance.training.items() if each not in (None, {})})),
        ("Calibrated", "no" if calibration is None else f"{calibration.data}, {calibration.episodes} tasks of a size"),
        ("Created", provenance.created),
        ("Made with", _listed(provenance.versions)),
    ]
    figures = [
        (
            each.name.replace("_", " ").capitalize(),
            f"{figure(each.name, each.value, each.confidence_interval)}, {each.protocol}",
        )
        for each in manifest.metrics
    ]
    return [(name, text.strip()) for name, text in (*rows, *figures) if text.strip()]


def figure(metric: str, mean: float, interval: float) -> str:
    """A mean with half of its interval, as people read it.

    >>> figure("accuracy", 0.987, 0.002)
    '98.70% ± 0.20%'
    """
    return f"{mean:.2%} ± {interval:.2%}" if metric == "accuracy" else f"{mean:.4g} ± {interval:.2g}"


def _encoder(origin: Any) -> str:
    named = () if origin is None else (origin.name, origin.source, origin.licence)
    return ", ".join(filter(None, named)) or "a frozen encoder"


def _listed(values: Mapping[str, Any]) -> str:
    shown = {key: each if isinstance(each, str) else json.dumps(each, default=str) for key, each in values.items()}
    return ", ".join(f"{key} {text}" for key, text in shown.items())
