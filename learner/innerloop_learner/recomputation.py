"""Functions whose intermediate results are computed again when gradients need them.

The outer gradient goes back through all inner steps, and the graph of each step holds its activations. A function that
is recomputed keeps no more than what it takes and returns. When the gradient reaches it, it runs again, so that the
activations of one call are there at a time (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost").

`torch.utils.checkpoint` does the same. But it also drops what a function that takes gradients itself is about to need,
so that each inner step runs forward three times instead of twice, and it loads PyTorch's compiler (4 s and 80 MB).
"""

from collections.abc import Callable
from contextvars import copy_context
from typing import ParamSpec, TypeVar
from weakref import ReferenceType, ref

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

P = ParamSpec("P")
R = TypeVar("R")

_SAME = "what is recomputed must do the same whenever it gets the same arguments"


class _Place:
    """A place at which a graph finds a tensor that it saved. It lives as long as the graph, which alone holds it."""

    __slots__ = ("__weakref__", "value")

    def __init__(self, value: Tensor) -> None:
        self.value: Tensor | None = value.detach()


def recomputed(function: Callable[P, R], *, wanted: bool = True) -> Callable[P, R]:
    """The function whose intermediate results are dropped after each call, and computed again for its gradient.

    Gradients are the same to the bit, also those of functions that take gradients themselves, and those with respect to
    tensors that the function holds rather than takes.

    Args:
        function: function that does the same whenever it gets the same arguments; without gradients it runs as it is.
        wanted: whether to recompute; if not, the result is the function itself.

    Raises:
        RuntimeError: (when gradients are computed) the function saved fewer or more tensors when it ran again.

    Example:
        >>> x = torch.tensor(3.0, requires_grad=True)
        >>> recomputed(lambda y: y.square().sin())(x).backward()
        >>> torch.equal(x.grad, 6 * torch.tensor(9.0).cos())
        True
    """

    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        if not torch.is_grad_enabled():
            return function(*args, **kwargs)
        places: list[ReferenceType[_Place]] = []
        context = copy_context()  # a GPU's gradients are computed in another thread

        def keep(value: Tensor) -> _Place:
            place = _Place(value)
            places.append(ref(place))
            return place

        def find(place: _Place) -> Tensor:
            if place.value is None:
                _run_again(lambda: context.copy().run(function, *args, **kwargs), places)
            if place.value is None:
                raise RuntimeError(f"a function saved fewer tensors when it ran again; {_SAME}")
            return place.value

        with saved_tensors_hooks(keep, find):
            result = function(*args, **kwargs)
        for each in places:
            if place := each():
                place.value = None
        return result

    return called if wanted else function


def _run_again(function: Callable[[], object], places: list[ReferenceType[_Place]]) -> None:
    """Put what a function saves into the places that are left of those of its first call, in the same order."""
    order = iter(places)

    def put(value: Tensor) -> Tensor:
        reference = next(order, None)
        if reference is None:
            raise RuntimeError(f"a function saved more tensors when it ran again; {_SAME}")
        if place := reference():
            place.value = value.detach()
        return value.detach()

    with torch.enable_grad(), saved_tensors_hooks(put, lambda value: value):
        function()
