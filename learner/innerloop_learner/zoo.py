"""The zoo: models that come with Innerloop, small bundles with a card each."""

from pathlib import Path

_HERE = Path(__file__).resolve()

_INSTALLED, _CHECKOUT = _HERE.with_name("models"), _HERE.parents[2] / "models"
"""Where a wheel puts the folder `models` of the repository, and where it lies in a checkout."""


def zoo_folder() -> Path:
    """The folder of the models, as `innerloop serve --models` takes it."""
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT
