"""The zoo: models that come with Innerloop, small bundles with a card each."""

from pathlib import Path

_HERE = Path(__file__).resolve()

_INSTALLED, _CHECKOUT = _HERE.with_name("models"), _HERE.parents[2] / "models"
"""The zoo lies in the first of these folders in an installed wheel, and in the second in a checkout."""


def zoo_folder() -> Path:
    """The folder of the models, as `innerloop serve --models` takes it."""
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT
