"""What a setting is searched in: a range of numbers, or choices."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from innerloop_trainer.config import ConfigError
from innerloop_trainer.recipes import check_names, merged
from innerloop_trainer.recipes.recipe import TABLES, setting_names

FORMS = "NAME=LEAST..MOST, NAME=LEAST..MOST:log or NAME=CHOICE,CHOICE"

FIXED = ("data", "encoder", "tokenizer")
"""Settings that stay: accuracies on other data can't be compared."""


@dataclass(frozen=True)
class Dimension:
    """One setting and what it is searched in.

    Attributes:
        name: name of the setting, that of a table in front with a dot: `set.rate`.
        distribution: range or choices. Choices are texts, each a value in JSON or a plain text.
    """

    name: str
    distribution: BaseDistribution

    def value(self, proposed: Any) -> Any:
        """The value of the setting that a proposal stands for."""
        return _value(proposed) if isinstance(self.distribution, CategoricalDistribution) else proposed

    def setting(self, proposed: Any) -> dict[str, Any]:
        """The proposal as settings of a recipe."""
        table, dot, name = self.name.partition(".")
        return {table: {name: self.value(proposed)}} if dot else {self.name: self.value(proposed)}


def read_dimensions(texts: Sequence[str]) -> list[Dimension]:
    """Read what settings are searched in.

    >>> [dimension] = read_dimensions(["set.rate=0.01..1:log"])
    >>> dimension.setting(0.5)
    {'set': {'rate': 0.5}}
    >>> [dimension] = read_dimensions(["schedule=cosine,constant"])
    >>> dimension.distribution.choices
    ('cosine', 'constant')

    Raises:
        ConfigError: a text has another form, names no setting or one that can't be searched, or a name comes twice.
    """
    dimensions: dict[str, Dimension] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not (name and equals and values):
            raise ConfigError(f"write what is searched as {FORMS}, not {text!r}")
        _check(name)
        if name in dimensions:
            raise ConfigError(f"{name} is searched twice; leave one out")
        dimensions[name] = Dimension(name, _range(text, values) if ".." in values else _choices(text, values))
    if not dimensions:
        raise ConfigError(f"nothing is searched; name settings with --search {FORMS}")
    return list(dimensions.values())


def applied(
    settings: Mapping[str, Any], dimensions: Sequence[Dimension], proposal: Mapping[str, Any]
) -> dict[str, Any]:
    """Settings of a recipe with what was proposed in their place."""
    for each in dimensions:
        settings = merged(settings, each.setting(proposal[each.name]))
    return dict(settings)


def _check(name: str) -> None:
    table, dot, rest = name.partition(".")
    check_names([table], setting_names(), "--search: a recipe")
    if table in FIXED:
        raise ConfigError(f"{table} can't be searched, since accuracies on other data can't be compared")
    if (table in TABLES) != bool(dot and rest):
        hint = f"name one of it, as {table}.NAME" if table in TABLES else "leave out what follows the dot"
        raise ConfigError(f"--search {name}: {table} is {'a table' if table in TABLES else 'no table'}; {hint}")


def _range(text: str, values: str) -> BaseDistribution:
    ends, colon, scale = values.partition(":")
    least, _, most = ends.partition("..")
    if colon and scale != "log":
        raise ConfigError(f"--search {text}: behind a range stands :log or nothing, not :{scale}")
    try:
        try:
            low, high = int(least), int(most)
            return IntDistribution(low, high, log=bool(colon))
        except ValueError as error:
            if least.strip().lstrip("-").isdigit() and most.strip().lstrip("-").isdigit():
                raise ConfigError(f"--search {text}: {error}") from error
            if not (math.isfinite(float(least)) and math.isfinite(float(most))):
                raise ConfigError(f"--search {text}: a range has finite ends") from error
            return FloatDistribution(float(least), float(most), log=bool(colon))
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"--search {text}: {error}; write {FORMS}") from error


def _choices(text: str, values: str) -> BaseDistribution:
    choices = [each.strip() for each in values.split(",")]
    if not all(choices) or len(set(choices)) != len(choices):
        raise ConfigError(f"--search {text}: each choice stands there once, with commas between")
    return CategoricalDistribution(choices)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
