"""Recipes of training runs: files of TOML that say all that a run's result depends on, apart from the machine.

`recipe` is a recipe as typed data, `file` reads and writes its file, and `paths` makes its paths absolute.
"""

from innerloop_trainer.recipes.file import RecipeFile, merged, read_recipe, write_recipe
from innerloop_trainer.recipes.paths import with_absolute_paths
from innerloop_trainer.recipes.recipe import Recipe, check_names, make_recipe

__all__ = [
    "Recipe",
    "RecipeFile",
    "check_names",
    "make_recipe",
    "merged",
    "read_recipe",
    "with_absolute_paths",
    "write_recipe",
]
