"""Model cards: what a bundle is, in Markdown with the head that Hugging Face reads."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import tomlkit

from innerloop_learner.bundle import Bundle
from innerloop_learner.manifest import Manifest, Metric
from innerloop_trainer.recipes import RecipeFile
from innerloop_trainer.recipes.card import CardTexts, card_texts
from innerloop_trainer.recipes.expected import Expected, expected_figures

CARD_FILE = "README.md"
"""File of a bundle's folder that holds its card, by the habit of Hugging Face."""

MARK = "library_name: innerloop"
"""Line of every card, by which one is told from a file that somebody else wrote."""


def make_card(bundle: Bundle, recipe: RecipeFile | None) -> str:
    """Write the card of a model.

    Args:
        bundle: the model.
        recipe: file of the recipe that made it, whose figures and texts the card shows; None if it is not known.

    Raises:
        ConfigError, SettingsError: the recipe's figures or texts can't be read.
    """
    manifest = bundle.manifest
    texts = CardTexts() if recipe is None else card_texts(recipe)
    expected = [] if recipe is None or not recipe.expected else expected_figures(recipe, known=False)
    figures = _figures(manifest, expected)
    sections = [
        _head(manifest, texts, figures),
        f"# {manifest.name}\n\n{_what(bundle)}",
        *([f"## Use\n\n{texts.use}"] if texts.use else []),
        f"```py\n{_example(manifest)}```",
        f"## Data\n\n{manifest.provenance.data}. {texts.data}".rstrip(),
        f"## Figures\n\nOn classes that it has never seen; ± is half of the 95% interval.\n\n{_table(figures)}",
        f"## Limits\n\n{_limits(manifest)} {texts.limits}".rstrip(),
        f"## Licence\n\n{texts.licence}",
        *([f"## How it was made\n\n{_making(manifest, recipe)}"] if recipe is not None else []),
    ]
    return "\n\n".join(sections) + "\n"


def _head(manifest: Manifest, texts: CardTexts, figures: Sequence[tuple[str, str, float, float]]) -> str:
    """The metadata in YAML; its texts are JSON, which is YAML too."""
    kind = "image-classification" if len(manifest.learner.input.shape) == 3 else "other"
    results = [
        f"      - type: {name}\n        name: {json.dumps(protocol)}\n        value: {value:.6g}"
        for name, protocol, value, _ in figures
    ]
    lines = [
        "---",
        f"license: {json.dumps(texts.licence)}",
        MARK,
        f"tags: {json.dumps(['few-shot-learning', 'meta-learning', manifest.learner.method])}",
        *([f"pipeline_tag: {kind}"] if kind != "other" else []),
        "model-index:",
        f"  - name: {json.dumps(manifest.name)}",
        "    results:",
        "    - task:",
        "        type: few-shot-learning",
        "      dataset:",
        f"        name: {json.dumps(manifest.provenance.data)}",
        f"        type: {json.dumps(manifest.provenance.training.get('data', 'unknown'))}",
        "      metrics:",
        *results,
        "---",
    ]
    return "\n".join(lines)


def _what(bundle: Bundle) -> str:
    learner = bundle.manifest.learner
    numbers = sum(value.numel() for value in bundle.params.values())
    shape = " x ".join(map(str, learner.input.shape))
    return (
        f"A model that learns classes from a few examples of each, served by Innerloop: method `{learner.method}`, "
        f"backbone `{learner.backbone}`{_listed(learner.backbone_settings)}, {numbers:,} parameters, inputs {shape} "
        f"({learner.input.dtype}). Version `{bundle.manifest.version}`."
    )


def _listed(settings: Mapping[str, Any]) -> str:
    texts = ", ".join(f"{name} {value}" for name, value in settings.items())
    return f" ({texts})" if texts else ""


def _example(manifest: Manifest) -> str:
    return (
        "from innerloop import Client\n\n"
        'with Client("localhost:50051") as client:\n'
        f'    adaptation = client.adapt("{manifest.name}", images, labels)  # a few of each class\n'
        "    print(adaptation.predict(queries).labels)\n"
    )


def _figures(manifest: Manifest, expected: Sequence[Expected]) -> list[tuple[str, str, float, float]]:
    """Name, protocol, value and interval of each figure on test classes; those of the recipe come first."""
    kind = "accuracy" if manifest.learner.task_kind == "classification" else "mean_squared_error"
    of_recipe = [
        (kind, _protocol(each, manifest), each.value, each.confidence_interval)
        for each in expected
        if each.value is not None and each.confidence_interval is not None
    ]
    return of_recipe or [
        (each.name, each.protocol, each.value, each.confidence_interval) for each in _tested(manifest.metrics)
    ]


def _tested(metrics: Sequence[Metric]) -> list[Metric]:
    return [each for each in metrics if " validation episodes" not in each.protocol]


def _protocol(expected: Expected, manifest: Manifest) -> str:
    ways, shots = expected.ways or manifest.limits.trained_ways, expected.shots or manifest.limits.trained_shots
    sizes = f"{ways}-way {shots}-shot" if ways else f"{shots}-shot"
    steps = [] if expected.steps is None else [f"{expected.steps} inner steps"]
    return ", ".join([expected.protocol, sizes, *steps, f"{expected.episodes} test episodes"])


def _table(figures: Sequence[tuple[str, str, float, float]]) -> str:
    if not figures:
        return "None were measured."
    rows = [
        f"| {protocol} | {value:.2%} ± {interval:.2%} |"
        if name == "accuracy"
        else f"| {protocol} | {name.replace('_', ' ')} {value:.4f} ± {interval:.4f} |"
        for name, protocol, value, interval in figures
    ]
    return "\n".join(["| protocol | accuracy |", "|---|---|", *rows])


def _limits(manifest: Manifest) -> str:
    limits, calibration = manifest.limits, manifest.calibration
    sizes = [(limits.max_ways, "classes"), (limits.max_steps, "inner steps")]
    most = " and ".join(f"{size} {word}" for size, word in sizes if size)
    takes = f"It takes up to {most} in a task." if most else "It takes tasks of any size."
    sure = (
        "How sure its answers are was not calibrated."
        if calibration is None
        else f"How sure its answers are was calibrated with the {calibration.data}, and holds for inputs like these."
    )
    return f"{takes} {sure}"


def _making(manifest: Manifest, recipe: RecipeFile) -> str:
    made = ", ".join(f"{name} {version}" for name, version in manifest.provenance.versions.items())
    return (
        f"`innerloop reproduce {recipe.path.name}`, the best of its validations after "
        f"{manifest.provenance.iterations:,} outer steps, with {made}:\n\n"
        f"```toml\n{tomlkit.dumps(_given(recipe))}```"
    )


def _given(recipe: RecipeFile) -> dict[str, Any]:
    """The settings of a recipe; the path of its data on this machine is left out."""
    data = str(recipe.settings.get("data", ""))
    name, _, options = data.partition("?")
    source = f"{name.partition(':')[0]}:PATH" if ":" in name else name
    return {**recipe.settings, "data": f"{source}?{options}" if options else source}


def is_card(text: str) -> bool:
    """Whether a text is a card that `make_card` wrote."""
    return text.startswith("---\n") and MARK in text.splitlines()
