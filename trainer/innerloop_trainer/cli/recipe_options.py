"""One option for each setting of a recipe, for the commands that take one."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from innerloop_trainer.cli.arguments import DATA, GROUPS, TABLES, option, parse_settings
from innerloop_trainer.config import TrainingConfig
from innerloop_trainer.recipes import Recipe, make_recipe, merged, read_recipe

RecipeOption = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        help="File of settings in TOML, such as the recipe.toml of a run. Options given here come before its settings.",
    ),
]


def with_recipe_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the argument METHOD and one option for each setting of a recipe, beside parameters of its own.

    Args:
        command: takes whatever parameters it does not name itself, and finds their values by `chosen_recipe`.
    """
    signature = inspect.signature(command)
    own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    method = Annotated[
        str | None, typer.Argument(help="A name that `innerloop methods` lists.", show_default="that of the recipe")
    ]
    data = _parameter("data", Annotated[str | None, DATA], None)
    added = [_parameter("method", method, None), data, *map(_setting, _settings())]
    context, *rest = own
    parameters = [context, *added, *(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in rest)]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


def chosen_recipe(context: typer.Context, file: Path | None) -> Recipe:
    """The recipe that the user chose: options come before the settings of a recipe's file, and these before defaults.

    Args:
        context: of a command that has the options of recipes.
        file: the recipe's file, if there is one.

    Raises:
        ConfigError: the file can't be used, or settings can't be read.
        SettingsError: a setting of the file has another type than it should have, or is out of range.
    """
    return make_recipe(merged({} if file is None else read_recipe(file).settings, given_settings(context)))


def given_settings(context: typer.Context) -> dict[str, Any]:
    """The settings that the user gave as options, by name.

    Raises:
        ConfigError: a setting has not the form NAME=VALUE.
    """
    given = {name: context.params[name] for name in ("method", "data", *_settings()) if _is_given(context, name)}
    return {name: parse_settings(value) if name in TABLES else value for name, value in given.items()}


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _settings() -> list[str]:
    """Names of settings in the order of help."""
    return [name for names in GROUPS.values() for name in names]


def _setting(name: str) -> inspect.Parameter:
    declared = {each.name: each for kind in (TrainingConfig, Recipe) for each in fields(kind)}
    if name in TABLES or name == "teacher":
        return _parameter(name, Annotated[list[str] | None, option(name)], None)
    return _parameter(name, Annotated[declared[name].type, option(name)], declared[name].default)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
