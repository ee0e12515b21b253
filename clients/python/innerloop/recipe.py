"""What an adaptation is made from, kept to make it again after the server had to drop it."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from innerloop.errors import InvalidArgumentError
from innerloop.labels import name_labels
from innerloop.tensors import Array, encode_tensor
from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1.tensor_pb2 import Inputs


@dataclass(frozen=True)
class Recipe:
    """A support set and how to adapt to it.

    Attributes:
        model: name of the model.
        support: encoded examples and their answers.
        options: steps and time to live.
        labels: the caller's own objects by their names on the wire; empty for regression.
    """

    model: str
    support: pb.Support
    options: pb.AdaptOptions
    labels: Mapping[str, Any]


def make_recipe(
    model: str,
    inputs: Inputs,
    labels: Iterable[Hashable] | None,
    targets: ArrayLike | None,
    steps: int | None,
    time_to_live: float | timedelta | None,
) -> Recipe:
    """Put a recipe together; see `Client.adapt` for the arguments.

    Raises:
        InvalidArgumentError: not exactly one of labels and targets, or one of them can't be sent.
    """
    options = _options(steps, time_to_live)
    if labels is not None and targets is None:
        named = name_labels(labels)
        support = pb.Support(inputs=inputs, labels=pb.Labels(values=named.names))
        return Recipe(model, support, options, named.originals)
    if targets is not None and labels is None:
        return Recipe(model, pb.Support(inputs=inputs, targets=encode_tensor(_columns(targets))), options, {})
    raise InvalidArgumentError("give either labels (classification) or targets (regression)")


def _options(steps: int | None, time_to_live: float | timedelta | None) -> pb.AdaptOptions:
    try:
        options = pb.AdaptOptions(steps=steps)
        if time_to_live is not None:
            lifetime = time_to_live if isinstance(time_to_live, timedelta) else timedelta(seconds=time_to_live)
            options.time_to_live.FromTimedelta(lifetime)
    except (ValueError, OverflowError) as error:
        raise InvalidArgumentError(f"steps={steps!r}, time_to_live={time_to_live!r}: {error}") from error
    return options


def _columns(targets: ArrayLike) -> Array:
    """Targets as float [N, D]; a flat list is one value per example."""
    try:
        array = np.asarray(targets, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise InvalidArgumentError(f"targets must be numbers, as many for each example: {error}") from error
    return array[:, np.newaxis] if array.ndim == 1 else array
