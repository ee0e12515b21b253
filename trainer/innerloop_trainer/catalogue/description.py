"""Finds what a name stands for."""

from innerloop_learner.learner import methods
from innerloop_learner.registry import UnknownNameError
from innerloop_trainer.catalogue.kinds import KINDS
from innerloop_trainer.catalogue.method import MethodDescription, describe_method
from innerloop_trainer.catalogue.part import PartDescription, describe_part


def describe(name: str) -> list[MethodDescription | PartDescription]:
    """Describe everything that is registered under a name: a method, a part, or one of each.

        >>> [type(each).__name__ for each in describe("reptile")]
        ['MethodDescription', 'PartDescription']

    Raises:
        UnknownNameError: nothing has this name; the message lists the methods.
    """
    found: list[MethodDescription | PartDescription] = [describe_method(name)] if name in methods else []
    found += [describe_part(kind, name) for kind in KINDS if name in kind.registry]
    if not found:
        *words, last = (kind.registry.kind for kind in KINDS)
        raise UnknownNameError(
            f"unknown method {name!r}; there are: {', '.join(methods)}. Nor is it the name of an {', '.join(words)} or "
            f"{last}"
        )
    return found
