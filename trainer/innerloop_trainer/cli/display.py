"""The output of the trainer's commands."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.table import Table

from innerloop_learner.augmentations import augmentations
from innerloop_learner.bundle import Bundle
from innerloop_learner.manifest import Graphs, Manifest, Metric, Provenance, TaskLimits
from innerloop_learner.settings import described
from innerloop_trainer.bundle_evaluation import BundleFigure
from innerloop_trainer.calibration import Honesty
from innerloop_trainer.cli.output import console
from innerloop_trainer.data import DataSource, SourceLoader
from innerloop_trainer.data.options import OptionHelp
from innerloop_trainer.encoders import PretrainedEncoder
from innerloop_trainer.runs.initial_parameters import Start
from innerloop_trainer.runs.log import Row
from innerloop_trainer.search import Tried
from innerloop_trainer.teaching import Teachers


def print_json(data: Any) -> None:
    """Print plain data as JSON."""
    typer.echo(json.dumps(data, indent=2))


def print_start(start: Start) -> None:
    """Print the parameters that training starts from."""
    fresh = f"; fresh: {', '.join(start.fresh)}" if start.fresh else ""
    console.print(f"Starts from {start.name}: {len(start.taken)} of its parameters{fresh}", soft_wrap=True)


def print_teachers(teachers: Teachers, teaching: str) -> None:
    """Print the models that teach, and what of them is learned."""
    names = ", ".join(f"{bundle.manifest.name} ({bundle.manifest.version})" for bundle in teachers.bundles)
    console.print(f"Learns from {names}, teaching {teaching}", soft_wrap=True)


def print_left_out(classes: Sequence[str]) -> None:
    """Print how many classes are left out, because a model that training uses has seen them."""
    if classes:
        count = f"{len(classes)} {'classes' if len(classes) > 1 else 'class'}"
        console.print(f"left out: {count} that the parameters were trained on or chosen by", soft_wrap=True)


def validation_line(row: Row, metric: str, pace: str, *, best: bool) -> str:
    """The figures of a validation, how fast training goes if that is to be said, and whether it is the best so far."""
    training, validation, interval = (
        number(value, metric) for value in (row.training, row.validation, row.validation_interval)
    )
    figures = f"loss {row.loss:.4f}  training {training}  validation {validation} ± {interval}"
    return "  ".join(filter(None, (f"{row.iteration:>6}", figures, pace, "best" * best)))


def print_evaluation(metric: Metric) -> None:
    """Print a figure with its confidence interval, and how it was measured."""
    console.print(f"{_words(metric.name)} {_figure(metric)}  ({metric.protocol})")


def print_calibration(manifest: Manifest) -> None:
    """Print what sizes of tasks a bundle was calibrated for."""
    console.print(f"calibrated for {_calibrated(manifest)}", soft_wrap=True)


def print_honesty(found: Honesty) -> None:
    """Print how well a calibration holds."""
    if found.error_after is not None:
        console.print(f"calibration error {found.error_after:.2%} ({found.error_before:.2%} of plain probabilities)")
    if found.separation is not None:
        console.print(
            f"unknown queries: area under the ROC curve {found.separation:.4f} ({found.baseline:.4f} by the largest "
            f"probability), {found.false_alarms:.2%} false alarms at 5%",
            soft_wrap=True,
        )
    unit = "labels in a set" if found.error_after is not None else "wide"
    for coverage, measured in found.coverage.items():
        console.print(f"coverage {measured:.2%} at {coverage:.0%}, {found.size[coverage]:.3g} {unit}")


def print_tried(tried: Tried, title: str) -> None:
    """Print what came of an architecture, and what it is."""
    figure = f"{tried.accuracy:.2%} ± {tried.confidence_interval:.2%}"
    size = f"{tried.multiply_adds / 1e6:.2f}M multiply-adds  {tried.parameters / 1e3:.0f}k parameters"
    chosen = "  ".join(f"{name} {option}" for name, option in tried.architecture.items())
    console.print(f"{title:>6}  {tried.failure or figure}  {size}\n        {chosen}", soft_wrap=True)


def chosen_settings(settings: Mapping[str, Any]) -> str:
    """Settings that were tried, in a line."""
    texts = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in settings.items()}
    return "  ".join(f"{name} {text}" for name, text in texts.items())


def print_notices(source: DataSource) -> None:
    """Print notices about how data was read, for example how many files were left out."""
    for notice in source.notices:
        console.print(notice, soft_wrap=True)


def print_figure(figure: BundleFigure, bundle: Bundle) -> None:
    """Print a figure of a bundle, and notices about the classes that it was measured on."""
    print_notices(figure.source)
    print_evaluation(figure.metric)
    print_left_out(figure.left_out)
    provenance = bundle.manifest.provenance
    if figure.metric.classes and provenance.meta_trained and not provenance.classes:
        console.print("the bundle does not say what it was trained on, so that may be among these classes")


def print_sources(sources: Mapping[str, SourceLoader]) -> None:
    """Print one entry per data source."""
    table = Table("source", "what it holds", "for example")
    for name, source in sources.items():
        table.add_row(name, source.summary, source.example)
    console.print(table)


def print_encoders(encoders: Sequence[PretrainedEncoder]) -> None:
    """Print one entry per encoder of the catalogue."""
    table = Table("encoder", "what it is", "features", "MB", "at hand")
    for encoder in encoders:
        card = encoder.card
        what = f"{card.form}: {card.summary}\ntrained on {card.trained_on}; {card.licence}\n{card.paper}"
        table.add_row(
            card.name,
            what,
            str(card.features),
            f"{card.megabytes:g}",
            "yes" if encoder.at_hand else f"no: {encoder.install}",
        )
    console.print(table)


def print_source(name: str, source: SourceLoader, options: Sequence[OptionHelp]) -> None:
    """Print the description of a data source, and its options with their defaults."""
    console.print(f"{name}: {source.summary}, for example {source.example}", soft_wrap=True)
    if not options:
        console.print("It has no options.")
        return
    table = Table("?option=", "default", "what it does")
    for each in options:
        table.add_row(each.name, each.default, f"{each.help} ({each.form})")
    console.print(table)


def print_bundle(bundle: Bundle) -> None:
    """Print the manifest of a bundle."""
    manifest = bundle.manifest
    learner, provenance = manifest.learner, manifest.provenance
    table = Table(show_header=False, title=manifest.name)
    rows = [
        ("version", manifest.version),
        ("method", _with_settings(learner.method, learner.settings)),
        ("backbone", _with_settings(learner.backbone, learner.backbone_settings)),
        ("parameters", f"{sum(value.numel() for value in bundle.params.values()):,}"),
        ("input", _input(manifest)),
        ("task", learner.task_kind),
        *((("class balance", learner.class_balance),) if learner.task_kind == "classification" else ()),
        *((("weighting", learner.weighting),) if learner.weighting != "none" else ()),
        *((("support policy", _policy(bundle)),) if learner.support_policy != "none" else ()),
        *((("trained for", _trained_for(manifest.limits)),) if provenance.meta_trained else ()),
        ("takes", _takes(manifest.limits)),
        *((("ONNX graphs", _described(manifest.graphs)),) if manifest.graphs else ()),
        *((("data", provenance.data),) if provenance.meta_trained else ()),
        *((("data options", _listed(provenance.options)),) if provenance.options else ()),
        ("training", _training(provenance)),
        ("created", provenance.created),
        ("made with", _listed(provenance.versions)),
        ("calibrated", _calibrated(manifest)),
        *((_words(metric.name), f"{_figure(metric)}\n{metric.protocol}") for metric in manifest.metrics),
    ]
    for name, text in rows:
        table.add_row(name, text)
    console.print(table)


def _calibrated(manifest: Manifest) -> str:
    """Sizes of tasks that a bundle was calibrated for, and with what."""
    calibration = manifest.calibration
    if calibration is None:
        return "no; `innerloop calibrate` does it"
    sizes = [f"{each.ways}-way {each.shots}-shot" if each.ways else f"{each.shots}-shot" for each in calibration.tasks]
    return f"{', '.join(sizes)}; {calibration.episodes} episodes each, {calibration.data}"


def _figure(metric: Metric) -> str:
    return f"{number(metric.value, metric.name)} ± {number(metric.confidence_interval, metric.name)}"


def number(value: float, metric: str) -> str:
    """The value of a metric, as people read it."""
    return f"{value:.2%}" if metric == "accuracy" else f"{value:.4f}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _input(manifest: Manifest) -> str:
    encoder, features = manifest.encoder, manifest.learner.input
    if encoder is None:
        return f"{features.dtype} {_sizes(features.shape)}"
    taken = {
        "texts": f"texts of up to {encoder.max_tokens} tokens",
        "images": f"images {_sizes(encoder.shape)}",
        "audio": f"audio, {_sizes(encoder.shape)} samples at {encoder.rate} Hz",
    }[encoder.input]
    how = [f"{encoder.pooling} of {encoder.output}"] if encoder.pooling != "none" else [encoder.output]
    how += ["of length 1"] * encoder.normalise
    origin = encoder.origin
    named = "" if origin is None else "\n" + ", ".join(filter(None, (origin.name, origin.source, origin.licence)))
    return f"{taken}{named}\n{_sizes(encoder.output_shape)} features of a frozen encoder ({', '.join(how)})"


def _sizes(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _with_settings(name: str, settings: Mapping[str, Any]) -> str:
    return f"{name} ({_listed(settings)})" if settings else name


def _policy(bundle: Bundle) -> str:
    """The support policy, what a copy counts, and the strengths, a line each."""
    policy, spec = bundle.learner.support_policy, bundle.learner.spec
    count = float(policy.count(bundle.params))
    what = f"{policy.copies} augmented copies of each example, each of which counts {count:.2f} times as much as it"
    lines = [f"{spec.support_policy}: {what}"]
    for name, strengths in policy.strengths(bundle.params).items():
        docs = {each.name: each.doc for each in described(augmentations[name].strengths_class)}
        lines += [f"{name}: {strength} {float(value):.3g}, {docs[strength]}" for strength, value in strengths.items()]
    return "\n".join(lines)


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _training(provenance: Provenance) -> str:
    if not provenance.meta_trained:
        return "none: nothing was meta-trained"
    return f"{provenance.iterations:,} outer steps, seed {provenance.seed}"


def _trained_for(limits: TaskLimits) -> str:
    sizes = [(limits.trained_ways, "-way"), (limits.trained_shots, "-shot"), (limits.trained_steps, " inner steps")]
    return " ".join(f"{size}{word}" for size, word in sizes if size)


def _described(graphs: Graphs) -> str:
    return f"none: {graphs.refused}" if graphs.refused else f"opset {graphs.opset}"


def _takes(limits: TaskLimits) -> str:
    sizes = [(limits.max_ways, "ways"), (limits.max_steps, "inner steps")]
    return ", ".join(f"up to {size} {word}" for size, word in sizes if size) or "any task"
